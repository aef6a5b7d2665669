"""The models: one file, one ``build()`` each, from float32 (N, 1, 28, 28) to logits (N, 10)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points

import torch
from torch import nn

from mnist_bench.models import cnn, lenet5, mlp
from mnist_bench.records import ModelEntry

BUILDERS: dict[str, Callable[[], nn.Module]] = {"cnn": cnn.build, "lenet5": lenet5.build, "mlp": mlp.build}
ENTRY_POINT_GROUP = "mnist_bench.models"


class ModelError(Exception):
    """A plug-in that cannot be used, and why."""


def build(entry: ModelEntry) -> nn.Module:
    """Builds the model of ``entry`` on the CPU; proves that a plug-in gives logits (N, 10).

    Raises:
        ModelError: the plug-in is not found, is no function without arguments, or gives something else.
    """
    if entry.builtin:
        return BUILDERS[entry.model]()
    model = _find(entry.model)()
    if not isinstance(model, nn.Module):
        raise ModelError(f"{entry.model}() returned a {type(model).__name__}, not a torch.nn.Module")
    _check_shape(entry.model, model)
    return model


def _find(target: str) -> Callable[[], object]:
    if ":" not in target:
        found = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == target]
        if not found:
            raise ModelError(f"no entry point {target!r} in the group {ENTRY_POINT_GROUP}: install its package")
        return found[0].load()  # type: ignore[no-any-return]
    module_name, _, function_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):  # the plug-in was found; what it imports was not
            raise
        raise ModelError(f"{target}: no module {module_name!r} beside the matrix file or among the packages") from error
    function = getattr(module, function_name, None)
    if function is None:
        raise ModelError(f"{target}: module {module_name!r} has no {function_name!r}")
    if not callable(function):
        raise ModelError(f"{target} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def _check_shape(target: str, model: nn.Module) -> None:
    training = model.training
    state = torch.get_rng_state()
    model.eval()
    with torch.no_grad():
        logits = model(torch.zeros(2, 1, 28, 28))
    model.train(training)
    torch.set_rng_state(state)
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, 10):
        raise ModelError(f"{target}: from an input (2, 1, 28, 28) came {shape}, not logits (2, 10)")
