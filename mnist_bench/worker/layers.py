"""Layers that do what torch's do in less time on a CPU: dropout by 16 random bits an element, pooling by shifted views.

torch draws each element of a mask of dropout by itself, which took a sixth of an eager step of the built-in cnn
(docs/log.md, 2026-11-30). The chance to drop is rounded to a multiple of 2**-16, and what is kept is
divided by the chance to keep that is then true, so that the expectation stays.
"""

from functools import reduce
from typing import cast

import torch
from torch import library, nn

LEVELS = 1 << 16


@library.custom_op("mnist_bench::draw", mutates_args=())
def draw(like: torch.Tensor, dropped: int) -> torch.Tensor:
    """bool in the shape and memory order of ``like``; False with the chance dropped / LEVELS."""
    mask = torch.empty_like(like, dtype=torch.bool)
    words = torch.empty(-(-mask.numel() // 4), dtype=torch.int64, device=like.device).random_(-(1 << 63), None)
    bits = words.view(torch.int16)[: mask.numel()]
    torch.ge(bits, dropped - LEVELS // 2, out=mask.as_strided((mask.numel(),), (1,)))
    return mask


@draw.register_fake
def _(like: torch.Tensor, dropped: int) -> torch.Tensor:
    return torch.empty_like(like, dtype=torch.bool)


class BitDropout(nn.Dropout):
    """As ``nn.Dropout``, not in place."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        dropped = round(self.p * LEVELS)
        if not self.training or dropped == 0:
            return input
        mask = cast(torch.Tensor, draw(input.detach(), min(dropped, LEVELS - 1)))
        return input * (mask.to(input.dtype) * (LEVELS / (LEVELS - dropped) if dropped < LEVELS else 0.0))


class ShiftedMaxPool(nn.MaxPool2d):
    """As ``nn.MaxPool2d`` with a stride of 1, unpadded; equal values share the gradient, which there the first has.

    A compiler fuses it with what is around it, which it does not with torch's own. Without one it is slower.
    """

    @staticmethod
    def replaces(pool: nn.MaxPool2d) -> bool:
        plain = (pool.stride, pool.padding, pool.dilation) in ((1, 0, 1), ((1, 1), 0, 1))
        return plain and isinstance(pool.kernel_size, int) and not (pool.ceil_mode or pool.return_indices)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        size = cast(int, self.kernel_size)
        for axis in (-1, -2):
            length = input.shape[axis] - size + 1
            input = reduce(torch.maximum, (input.narrow(axis, shift, length) for shift in range(size)))
        return input


def replace_layers(model: nn.Module, *, compiled: bool) -> nn.Module:
    """The model with each of its layers replaced that is exactly one of torch's for which there is a faster one.

    Args:
        compiled: a compiler will see it.
    """
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, BitDropout(child.p))
            elif type(child) is nn.MaxPool2d and compiled and ShiftedMaxPool.replaces(child):
                setattr(module, name, ShiftedMaxPool(child.kernel_size, 1))
    return model
