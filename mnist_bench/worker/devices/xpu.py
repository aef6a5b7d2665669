"""Intel GPUs."""

from __future__ import annotations

import torch

from mnist_bench.worker.devices import Accelerator


class Xpu(Accelerator):
    def __init__(self, index: int) -> None:
        super().__init__(torch.xpu, torch.device("xpu", index))

    def missing(self) -> str | None:
        if not torch.xpu.is_available():
            return "torch sees no Intel GPU: install the XPU build of torch and Intel's driver"
        return None

    def describe(self) -> str:
        return str(torch.xpu.get_device_properties(self.torch_device).name)
