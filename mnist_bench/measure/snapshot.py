"""The state of a trial before anything was executed, and the way back to it."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn


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
            for state in self._optimizer.state.values():
                for value in state.values():
                    if isinstance(value, torch.Tensor):
                        value.zero_()
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
