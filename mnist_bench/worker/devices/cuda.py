"""NVIDIA GPUs (and AMD's under ROCm, which torch calls ``cuda`` too)."""

import torch

from mnist_bench.worker.devices import Device


class Cuda(Device):
    def __init__(self, index: int) -> None:
        super().__init__(torch.device("cuda", index), torch.cuda)

    def missing(self) -> str | None:
        if torch.version.cuda is None and torch.version.hip is None:
            return f"this torch ({torch.__version__}) is a CPU build: install a CUDA build (README: which torch)"
        if not torch.cuda.is_available():
            return "torch sees no GPU: check the NVIDIA driver (nvidia-smi) and CUDA_VISIBLE_DEVICES"
        index = self.torch_device.index
        if index >= (count := torch.cuda.device_count()):
            return f"there is no GPU {index}: torch sees {count} (cuda:0 to cuda:{count - 1})"
        return None

    def describe(self) -> str:
        properties = torch.cuda.get_device_properties(self.torch_device)
        runtime = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
        return f"{properties.name}, capability {properties.major}.{properties.minor}, {runtime}"
