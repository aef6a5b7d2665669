"""What is trained: the built-in models, a plug-in, the selftest's own; and its optimizer."""

import json
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import entry_points
from inspect import signature

import torch
from torch import nn

from mnist_bench.catalogue import ENTRY_POINT_GROUP, MODELS, SELFTEST, load
from mnist_bench.errors import TrialError
from mnist_bench.records import CELL_VARIABLE, MNIST, DataSet, ModelEntry
from mnist_bench.running.protocol import LOAD_DEPTH, LOAD_VARIABLE, LOAD_WIDTH

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 784), nn.ReLU(), nn.Linear(784, 10))


def cnn() -> nn.Module:
    """A convolution of 10 channels, 27 x 27 after the pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 10, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=2, stride=1),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(10 * 27 * 27, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def lenet5() -> nn.Module:
    """LeNet-5 (LeCun et al. 1998), tanh and average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(kernel_size=2, stride=2),
        nn.Conv2d(6, 16, kernel_size=5),
        nn.Tanh(),
        nn.AvgPool2d(kernel_size=2, stride=2),
        nn.Conv2d(16, 120, kernel_size=5),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, 10),
    )


def build_model(
    entry: ModelEntry, data: DataSet = MNIST, *, allow_plugins: bool = False, plugin_path: str | None = None
) -> nn.Module:
    """Builds the model of ``entry`` on the CPU; proves that a plug-in gives logits (N, classes).

    A plug-in that takes ``shape`` or ``classes`` is given those of the data set.

    Raises:
        TrialError: the plug-in is not allowed, is not found, or gives something else.
    """
    if entry.model in MODELS:
        return load(MODELS[entry.model])()  # type: ignore[no-any-return]
    build = plugged(entry.model, allow_plugins=allow_plugins, plugin_path=plugin_path)
    facts, taken = {"shape": data.shape, "classes": data.classes}, signature(build).parameters
    model = build(**{name: facts[name] for name in facts if name in taken})
    if not isinstance(model, nn.Module):
        raise TrialError(f"{entry.model}() returned a {type(model).__name__}, not a torch.nn.Module")
    _check_shape(entry.model, model, data)
    return model


def plugged(target: str, *, allow_plugins: bool, plugin_path: str | None) -> Callable[..., object]:
    """The function that a model or a data set names.

    Code that is not this program's is imported with ``allow_plugins`` alone; only then are the working folder and,
    before it, ``plugin_path`` on the path.

    Raises:
        TrialError: it is not allowed, or not found.
    """
    if not allow_plugins and target != SELFTEST:
        raise TrialError(f"{target} is code that is not built in: add --allow-plugins to run it")
    if allow_plugins and plugin_path is not None and sys.path[:2] != [plugin_path, ""]:
        sys.path[:0] = [plugin_path, ""]  # the latter, as Python has it, is the working folder, should there be one
    return _find(target)


def build_optimizer(
    model: nn.Module, name: str, lr: float, *, fused: bool, capturable: bool = False
) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW with torch's defaults; ``fused``: one kernel for all parameters, else torch's own choice.

    ``capturable``: its steps can be recorded in a CUDA graph. Those of SGD, which counts none, always can.
    """
    own = {"capturable": True} if capturable and name != "sgd" else {}
    return OPTIMIZERS[name](model.parameters(), lr=lr, fused=True if fused else None, **own)


@contextmanager
def scoring(
    model: nn.Module, mode: Callable[[], AbstractContextManager[object]] = torch.inference_mode
) -> Iterator[None]:
    """As a model is scored, not trained: no dropout, no gradients."""
    model.eval()
    try:
        with mode():
            yield
    finally:
        model.train()


def as_weights(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Images that the bare model takes."""
    return images.to(next(model.parameters()).dtype)


def _find(target: str) -> Callable[..., object]:
    module_name, colon, _ = target.partition(":")
    if not colon:
        for point in entry_points(group=ENTRY_POINT_GROUP, name=target):
            return point.load()  # type: ignore[no-any-return]
        raise TrialError(f"no entry point {target!r} in the group {ENTRY_POINT_GROUP}: install its package")
    try:
        return pkgutil.resolve_name(target)  # type: ignore[no-any-return]
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):  # the plug-in was found; what it imports was not
            raise
        raise TrialError(f"{target}: no module {module_name!r} beside the matrix file or among the packages") from error


def _check_shape(target: str, model: nn.Module, data: DataSet) -> None:
    given, wanted = (2, *data.shape), (2, data.classes)
    state = torch.get_rng_state()
    with scoring(model, torch.no_grad):
        logits = model(torch.zeros(given))
    torch.set_rng_state(state)
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != wanted:
        raise TrialError(f"{target}: from an input {given} came {found}, not logits {wanted}")


class Laden(nn.Module):
    """A model that multiplies matrices beside its own work, and returns the same logits: what ``selftest`` injects.

    The product of ``rows`` x LOAD_WIDTH and LOAD_WIDTH x LOAD_WIDTH is taken LOAD_DEPTH times over, and its sum, times
    a buffer that holds 0, is added to the logits. So the numbers stay (a logit of -0.0 becomes 0.0, which is equal),
    and so do the gradients: no parameter takes part. A compiler cannot leave the work out: the matrices are buffers,
    which a compiled graph takes as inputs, so that it knows neither that their values never change nor that the factor
    is 0; and it cannot merge the products, as each takes the one before. The square matrix permutes columns: its powers
    neither grow nor shrink, and no denormal slows them.
    """

    work: torch.Tensor
    permutation: torch.Tensor
    nothing: torch.Tensor

    def __init__(self, model: nn.Module, rows: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("work", torch.ones(rows, LOAD_WIDTH), persistent=False)
        self.register_buffer("permutation", torch.eye(LOAD_WIDTH).roll(1, 0), persistent=False)
        self.register_buffer("nothing", torch.zeros(()), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        product = self.work
        for _ in range(LOAD_DEPTH):
            product = product @ self.permutation
        logits: torch.Tensor = self.model(images)
        return logits + self.nothing * product.sum()


def selftest() -> nn.Module:
    """The model of the cell that this worker was started for; with no rows of work it is the bare model."""
    name, rows = json.loads(os.environ[LOAD_VARIABLE])[os.environ[CELL_VARIABLE]]
    # Allowed: what the environment names is of the selftest's own making, which refused a matrix that may not.
    model = build_model(ModelEntry(name="selftest", model=name), allow_plugins=True)
    return Laden(model, rows) if rows else model
