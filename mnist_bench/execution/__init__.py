"""The executions: from (model, optimizer, variant) to a step and a forward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from mnist_bench.execution import compiled, eager
from mnist_bench.execution.program import Program
from mnist_bench.records import Variant

EXECUTIONS: dict[str, Callable[[nn.Module, torch.optim.Optimizer, Variant, torch.device], Program]] = {
    "eager": eager.build,
    "compile": compiled.build,
}


def build(model: nn.Module, optimizer: torch.optim.Optimizer, variant: Variant, device: torch.device) -> Program:
    return EXECUTIONS[variant.execution](model, optimizer, variant, device)


__all__ = ["EXECUTIONS", "Program", "build"]
