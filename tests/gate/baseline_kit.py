"""Runs for the tests of baselines: two models, eager and compiled, on the CPU; and what can happen to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msgspec import structs
from run_factory import matrix_of, records

from mnist_bench.analysis.summary import Run
from mnist_bench.gate.baseline import Baseline, baseline_of, held_against
from mnist_bench.gate.evidence import Check
from mnist_bench.records import BUILTIN_VARIANTS, Matrix, Measurement, Session, Trial

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
    accuracy: Mapping[str, float] | None = None,
    salt: int = 0,
    **changes: Any,
) -> Run:
    """A run.

    Args:
        trouble: by cell or trial id: (status, reason).
        slow: by cell id: the factor on its steps.
        accuracy: by cell id: what its accuracy changes by, in every seed, and its predictions with it.
        changes: of the manifest.
    """
    manifest, trials, sessions = records(matrix or small_matrix(), trouble or {}, salt=salt)
    return Run(
        manifest=replace(manifest, **changes),
        trials=tuple(_worse(trial, accuracy or {}) for trial in trials),
        sessions=tuple(_slower(session, slow or {}) for session in sessions),
    )


def make_baseline(*args: Any, **kwargs: Any) -> Baseline:
    return baseline_of(make_run(*args, **kwargs), "for tests")


def check_of(run: Run, baseline: Baseline, **kwargs: Any) -> Check:
    return held_against(run, baseline, "baseline.json", **kwargs)


def rewritten(run: Run, **changes: Any) -> Run:
    """A run whose manifest says something else, or that has other lines."""
    own = {name: changes.pop(name) for name in ("trials", "sessions") if name in changes}
    return replace(run, manifest=replace(run.manifest, **changes), **own)


def _slower(session: Session, slow: Mapping[str, float]) -> Session:
    factors = [slow.get(member.rpartition("/s")[0], 1.0) for member in session.members]
    rounds = tuple(
        replace(one, seconds=tuple(s * f for s, f in zip(one.seconds, factors, strict=True))) for one in session.rounds
    )
    steps = {
        member: replace(times, p50_ms=times.p50_ms * factor)
        for (member, times), factor in zip(session.steps.items(), factors, strict=True)
    }
    return replace(session, rounds=rounds, steps=steps)


def _worse(trial: Trial, accuracy: Mapping[str, float]) -> Trial:
    change = accuracy.get(trial.cell.id)
    if change is None or not isinstance(trial.outcome, Measurement):
        return trial
    epochs = trial.outcome.epochs
    epochs = replace(epochs, accuracy=(*epochs.accuracy[:-1], round(epochs.accuracy[-1] + change, 4)))
    digest = trial.outcome.predictions_sha256[::-1]
    return replace(trial, outcome=structs.replace(trial.outcome, epochs=epochs, predictions_sha256=digest))
