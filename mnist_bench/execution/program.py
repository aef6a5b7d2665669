"""What an execution makes: the two functions that the hot loops call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mnist_bench.measure.numerics import AUTOCAST
from mnist_bench.records import Variant

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """``step(images, labels)`` trains once and returns the mean loss, detached; ``forward(images)`` gives logits."""

    step: Step
    forward: Forward


def assemble(forward: Forward, optimizer: torch.optim.Optimizer) -> Program:
    """Forward, loss, backward, update, each in its own call. Flat, since each step pays for every layer of Python."""
    update, zero_grad = optimizer.step, optimizer.zero_grad

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = cross_entropy(forward(images), labels)
        loss.backward()
        update()
        zero_grad()
        return loss.detach()

    return Program(step=step, forward=forward)


def with_precision(forward: Forward, variant: Variant, device: torch.device) -> Forward:
    """``forward`` under the variant's autocast; itself where there is none. Logits come back as float32."""
    dtype = AUTOCAST.get(variant.precision)
    if dtype is None:
        return forward

    def autocast(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=dtype):
            logits = forward(images)
        return logits.float()

    return autocast


def build_optimizer(model: nn.Module, name: str, lr: float, *, fused: bool) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW with torch's defaults; ``fused``: one kernel for all parameters, else torch's own choice."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    return kinds[name](model.parameters(), lr=lr, fused=True if fused else None)
