"""The way back to the first state, and the way to fresh memory: values and objects stay, what was drawn is undrawn."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mnist_bench.worker.models import build_optimizer
from mnist_bench.worker.state import MAX_FIRST_SPACER_BYTES, MAX_SPACER_BYTES, Relocator, Snapshot, state_tensors

CPU = torch.device("cpu")
OPTIMIZERS = pytest.mark.parametrize(("kind", "per_parameter"), [("sgd", 0), ("adam", 3), ("adamw", 3)])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    loss = cross_entropy(model(torch.rand(8, 1, 28, 28)), torch.randint(10, (8,)))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@OPTIMIZERS
@pytest.mark.parametrize("fused", [True, False])
def test_restored_training_is_the_same_training(model: nn.Module, kind: str, per_parameter: int, fused: bool) -> None:
    optimizer = build_optimizer(model, kind, 0.01, fused=fused)
    snapshot = Snapshot(model, optimizer, CPU)
    model(torch.rand(8, 1, 28, 28))
    assert not snapshot.weights_changed()  # but buffers have
    snapshot.restore()
    values = {name: value.clone() for name, value in model.state_dict().items()}
    objects = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    first, drawn = [step(model, optimizer) for _ in range(5)], draw()
    assert snapshot.weights_changed()
    tensors = state_tensors(model, optimizer)
    assert len({id(tensor) for tensor in tensors}) == len(objects) + per_parameter * len(list(model.parameters()))

    snapshot.restore()

    assert not snapshot.weights_changed()
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert [id(tensor) for tensor in (*model.parameters(), *model.buffers())] == objects
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(not tensor.any() for tensor in tensors[len(objects) :])
    assert [step(model, optimizer) for _ in range(5)] == first  # weights, statistics, moments and batches, to the bit
    assert draw() == drawn


def test_every_tensor_moves_keeps_its_value_and_training_does_not_notice(model: nn.Module) -> None:
    optimizer = build_optimizer(model, "adam", 0.01, fused=True)
    snapshot = Snapshot(model, optimizer, CPU)
    step(model, optimizer)
    snapshot.restore()
    straight = [step(model, optimizer) for _ in range(6)]
    snapshot.restore()
    relocator, moved = Relocator(), []
    for seed in range(6):
        before = [(each, each.data_ptr(), each.clone(), each.stride()) for each in state_tensors(model, optimizer)]
        relocator.move(state_tensors(model, optimizer), random.Random(seed))
        for (tensor, address, value, stride), after in zip(before, state_tensors(model, optimizer), strict=True):
            assert after is tensor
            assert after.data_ptr() != address
            assert torch.equal(after, value)
            assert after.stride() == stride
        moved.append(step(model, optimizer))
    assert moved == straight


def test_memory_formats_and_shared_weights_survive_a_move() -> None:
    images = torch.rand(4, 3, 8, 8).to(memory_format=torch.channels_last)
    Relocator().move([images], random.Random(0))
    assert images.is_contiguous(memory_format=torch.channels_last)
    first, second = nn.Linear(10, 10), nn.Linear(10, 10)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    tensors = state_tensors(model, build_optimizer(model, "sgd", 0.1, fused=True))
    assert len(tensors) == 3
    Relocator().move(tensors, random.Random(0))
    assert second.weight is first.weight


def test_spacers_are_of_random_size_and_held_until_the_next_move() -> None:
    relocator, tensors = Relocator(), [torch.rand(10) for _ in range(20)]
    relocator.move(tensors, random.Random(1))
    sizes = [spacer.numel() for spacer in relocator._spacers]
    assert len(sizes) == 20 == len(set(sizes))
    assert 1 <= sizes[0] < MAX_FIRST_SPACER_BYTES
    assert 1 <= min(sizes[1:]) < max(sizes[1:]) < MAX_SPACER_BYTES
