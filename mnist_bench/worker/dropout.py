"""Dropout on a CPU whose masks are drawn as 16 random bits an element.

torch draws each element of a mask by itself, which took a sixth of an eager step of the built-in cnn (docs/log.md,
2026-11-30). The chance to drop is rounded to a multiple of 2**-16, and what is kept is
divided by the chance to keep that is then true, so that the expectation stays.
"""

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


def with_bits(model: nn.Module) -> nn.Module:
    """The model with each of its ``nn.Dropout`` replaced; of other kinds of dropout none is."""
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, BitDropout(child.p))
    return model
