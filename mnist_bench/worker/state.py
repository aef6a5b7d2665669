"""The state of a trial: the way back to how it was built, and to fresh memory between blocks."""

import random
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

MAX_SPACER_BYTES = 64 * 1024
MAX_FIRST_SPACER_BYTES = 8 * 1024 * 1024


class Snapshot:
    """Weights, buffers and every random state, as they were when it was taken.

    ``restore`` writes values into the tensors that there are (a compiled graph keeps its guards) and fills the
    optimizer's state with zeros, which is how SGD, Adam and AdamW begin.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self._model, self._optimizer, self._device = model, optimizer, device
        self._values = [tensor.detach().clone() for tensor in self._tensors()]
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self._device_rng = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    def restore(self) -> None:
        with torch.no_grad():
            for tensor, value in zip(self._tensors(), self._values, strict=True):
                tensor.copy_(value)
            for tensor in optimizer_tensors(self._optimizer):
                tensor.zero_()
        self._optimizer.zero_grad()
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._device_rng is not None:
            torch.get_device_module(self._device).set_rng_state(self._device_rng, self._device)

    def weights_changed(self) -> bool:
        """Whether any parameter differs from what it was."""
        parameters = list(self._model.parameters())
        return any(not torch.equal(now, then) for now, then in zip(parameters, self._values, strict=False))

    def _tensors(self) -> list[torch.Tensor]:
        return [*self._model.parameters(), *self._model.buffers()]


class Relocator:
    """Moves tensors to fresh memory; where they happen to lie is a bias of several per cent, this makes it noise.

    Every tensor is cloned; the clones are made before the old memory is freed, each behind a spacer of random size, so
    that neither page nor cache set is the same twice. The tensor objects stay the same (their ``.data`` is set), so
    optimizers and compiled graphs do not notice, and values do not change. The first spacer, of several MiB, shifts
    what every step allocates anew (activations, gradients) as well: malloc would else put it where it was. The spacers
    of the last move are held until the next, so that holes are not refilled at once.
    """

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
    return [*model.parameters(), *model.buffers(), *optimizer_tensors(optimizer)]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    values = (value for state in optimizer.state.values() for value in state.values())
    return [value for value in values if isinstance(value, torch.Tensor)]
