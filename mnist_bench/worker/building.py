"""What is trained: a model, built in or a plug-in, and its optimizer."""

import importlib
import pkgutil
import sys
from collections.abc import Callable
from importlib.metadata import entry_points

import torch
from torch import nn

from mnist_bench.errors import TrialError
from mnist_bench.models import ENTRY_POINT_GROUP, MODELS, SELFTEST
from mnist_bench.records import ModelEntry

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def build_model(entry: ModelEntry, *, allow_plugins: bool = False, plugin_path: str | None = None) -> nn.Module:
    """Builds the model of ``entry`` on the CPU; proves that a plug-in gives logits (N, 10).

    Args:
        allow_plugins: whether code that is not this program's may be imported; only then are the working folder and,
            before it, ``plugin_path`` on the path.

    Raises:
        TrialError: the plug-in is not allowed, is not found, is no function without arguments, or gives something else.
    """
    if entry.model in MODELS:
        return pkgutil.resolve_name(f"mnist_bench.models.{entry.model}:build")()  # type: ignore[no-any-return]
    if not allow_plugins and entry.model != SELFTEST:
        raise TrialError(f"{entry.model} is code that is not built in: add --allow-plugins to run it")
    if allow_plugins and plugin_path is not None:
        sys.path[:0] = [plugin_path, ""]  # the latter, as Python has it, is the working folder, should there be one
    model = _find(entry.model)()
    if not isinstance(model, nn.Module):
        raise TrialError(f"{entry.model}() returned a {type(model).__name__}, not a torch.nn.Module")
    _check_shape(entry.model, model)
    return model


def build_optimizer(model: nn.Module, name: str, lr: float, *, fused: bool) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW with torch's defaults; ``fused``: one kernel for all parameters, else torch's own choice."""
    return OPTIMIZERS[name](model.parameters(), lr=lr, fused=True if fused else None)


def _find(target: str) -> Callable[[], object]:
    if ":" not in target:
        found = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == target]
        if not found:
            raise TrialError(f"no entry point {target!r} in the group {ENTRY_POINT_GROUP}: install its package")
        return found[0].load()  # type: ignore[no-any-return]
    module_name, _, function_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):  # the plug-in was found; what it imports was not
            raise
        raise TrialError(f"{target}: no module {module_name!r} beside the matrix file or among the packages") from error
    function = getattr(module, function_name, None)
    if function is None:
        raise TrialError(f"{target}: module {module_name!r} has no {function_name!r}")
    if not callable(function):
        raise TrialError(f"{target} is a {type(function).__name__}, not a function")
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
        raise TrialError(f"{target}: from an input (2, 1, 28, 28) came {shape}, not logits (2, 10)")
