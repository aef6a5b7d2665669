"""Benchmark of MNIST models over devices, batch sizes and execution variants, with figures that can be trusted.

The library (docs/library.md): its names are imported when they are asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_bench.library import BenchError, Matrix, Run, load, load_matrix, run

__version__ = "0.1.0"
__all__ = ["BenchError", "Matrix", "Run", "load", "load_matrix", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("mnist_bench.library"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
