"""Runs for the tests of baselines: two models, eager and compiled, on the CPU; and what can happen to them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from run_factory import matrix_of, records

from mnist_bench.analysis.summary import Run
from mnist_bench.gate.baseline import Baseline, baseline_of
from mnist_bench.records import BUILTIN_VARIANTS, Matrix

EAGER, COMPILED = "mlp/cpu/b100/eager", "mlp/cpu/b100/compile"
OTHER = "lenet5/cpu/b100/compile"


def small_matrix(**changes: Any) -> Matrix:
    variants = tuple(BUILTIN_VARIANTS[name] for name in ("eager", "compile"))
    return matrix_of("mlp", "lenet5", **{"devices": ("cpu",), "batch_sizes": (100,), "variants": variants, **changes})


def make_run(
    matrix: Matrix | None = None,
    trouble: Mapping[str, tuple[str, str]] | None = None,
    *,
    slow: Mapping[str, float] | None = None,
    salt: int = 0,
    **changes: Any,
) -> Run:
    """A run.

    Args:
        trouble: by cell or trial id: (status, reason).
        slow: by cell id: the factor on its steps and epochs.
        changes: of the manifest.
    """
    moved = {cell: (factor, 0.0) for cell, factor in (slow or {}).items()}
    manifest, trials, sessions = records(matrix or small_matrix(), trouble, salt=salt, changes=moved)
    return Run(manifest=replace(manifest, **changes), trials=tuple(trials), sessions=tuple(sessions))


def make_baseline(*args: Any, **kwargs: Any) -> Baseline:
    return baseline_of(make_run(*args, **kwargs), "for tests")


def rewritten(run: Run, **changes: Any) -> Run:
    """A run whose manifest says something else, or that has other lines."""
    own = {name: changes.pop(name) for name in ("trials", "sessions") if name in changes}
    return replace(run, manifest=replace(run.manifest, **changes), **own)
