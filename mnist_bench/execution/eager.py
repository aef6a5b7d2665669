"""Operator by operator, as written."""

from __future__ import annotations

import torch
from torch import nn

from mnist_bench.execution.program import Program, assemble, with_precision
from mnist_bench.records import Variant


def build(model: nn.Module, optimizer: torch.optim.Optimizer, variant: Variant, device: torch.device) -> Program:
    return assemble(with_precision(model, variant, device), optimizer)
