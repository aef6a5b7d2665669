"""Fresh memory between blocks: where tensors happen to lie is a bias of several per cent, this makes it noise.

Before a block every tensor that steps read or write is cloned; the clones are made before the old memory is freed,
each behind a spacer of random size, so that neither page nor cache set is the same twice. The tensor objects stay the
same (their ``.data`` is set), so optimizers and compiled graphs do not notice, and values do not change.

A spacer of several MiB before them all shifts what every step allocates anew (activations, gradients) as well: malloc
would else put it where it was.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import torch
from torch import nn

MAX_SPACER_BYTES = 64 * 1024
MAX_FIRST_SPACER_BYTES = 8 * 1024 * 1024


class Relocator:
    """Moves tensors; holds the spacers of the last move until the next, so that holes are not refilled at once."""

    def __init__(self) -> None:
        self._spacers: list[torch.Tensor] = []

    def move(self, tensors: Iterable[torch.Tensor], rng: random.Random) -> None:
        spacers: list[torch.Tensor] = []
        pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        for tensor in tensors:
            size = rng.randrange(1, MAX_SPACER_BYTES if spacers else MAX_FIRST_SPACER_BYTES)
            spacers.append(torch.empty(size, dtype=torch.uint8, device=tensor.device))
            pairs.append((tensor, tensor.detach().clone(memory_format=torch.preserve_format)))
        for tensor, clone in pairs:
            tensor.data = clone
        self._spacers = spacers


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Parameters, buffers and the optimizer's state tensors, each once."""
    found: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    for state in optimizer.state.values():
        found.extend(value for value in state.values() if isinstance(value, torch.Tensor))
    return found
