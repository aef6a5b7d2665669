"""Intel GPUs."""

import torch

from mnist_bench.worker.devices import Device


class Xpu(Device):
    def __init__(self, index: int) -> None:
        super().__init__(torch.device("xpu", index), torch.xpu)

    def missing(self) -> str | None:
        if not torch.xpu.is_available():
            return "torch sees no Intel GPU: install the XPU build of torch and Intel's driver"
        return None

    def describe(self) -> str:
        return str(torch.xpu.get_device_properties(self.torch_device).name)
