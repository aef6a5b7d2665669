"""Checks for tests: each record with the least that must be said, the rest plausible; checks of every kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

from record_factory import SHA, make_cell

from mnist_bench.gate.records import (
    CHECK_SCHEMA_VERSION,
    AccuracyFinding,
    Advisory,
    CellEvidence,
    Check,
    Margins,
    ProcessPair,
    SeedPair,
    SideFault,
    SideInfo,
    Solo,
    SpeedFinding,
    Training,
    Verdict,
    VerdictKind,
)
from mnist_bench.records import Cell, Failure, Round, Skip
from mnist_bench.stats import Interval

CHECK_ID = "20261126T101500Z-a1b2c3"
KINDS: tuple[VerdictKind, ...] = get_args(VerdictKind)
# Seconds per step of A in the rounds of a pair.
STEPS_S = (0.0161, 0.0158, 0.0174)


def make_pair(number: int = 0, log_ratio: float = 0.0, noisy: Sequence[str] = ()) -> ProcessPair:
    """A pair whose every round has B slower by ``log_ratio``; the stored ratio is the median of its rounds."""
    rounds = tuple(
        Round(order=(n % 2, 1 - n % 2), steps=(6, 6), seconds=(6 * step_s, 6 * step_s * math.exp(log_ratio)))
        for n, step_s in enumerate(STEPS_S)
    )
    found = sorted(math.log(one.seconds[1] / one.seconds[0]) for one in rounds)
    return ProcessPair(number=number, log_ratio=found[len(found) // 2], rounds=rounds, noisy=tuple(noisy))


def make_pairs(ratio: float = 1.0, count: int = 16, spread: float = 0.01) -> tuple[ProcessPair, ...]:
    """Pairs about a ratio of times B / A, evenly spread; the first is noisy."""
    offsets = [spread * (2 * n / (count - 1) - 1) for n in range(count)]
    return tuple(
        make_pair(n, math.log(ratio) + offset, noisy=["load 3.1"] if n == 0 else []) for n, offset in enumerate(offsets)
    )


def make_training(accuracy: float = 0.97, sha: str = SHA, **changes: Any) -> Training:
    training = Training(
        accuracy=accuracy,
        images=10_000,
        predictions_sha256=sha,
        device_name="AMD EPYC",
        compile_s=None,
        time_to_first_step_s=3.0,
        train_samples_per_s=6_400.0,
        eval_samples_per_s=21_000.0,
        host_peak_bytes=512 << 20,
        device_peak_bytes=None,
    )
    return replace(training, **changes)


def make_seeds(change: float = 0.0, count: int = 3) -> tuple[SeedPair, ...]:
    """Seeds whose accuracy differs by ``change``; equal predictions where it is 0."""
    return tuple(
        SeedPair(
            seed=seed,
            a=make_training(0.97 + seed / 1000),
            b=make_training(0.97 + seed / 1000 + change, SHA if change == 0 else SHA[::-1]),
        )
        for seed in range(count)
    )


def make_evidence(cell: Cell | None = None, ratio: float = 1.0, change: float = 0.0, **changes: Any) -> CellEvidence:
    """A cell on both sides, with 16 pairs about ``ratio`` and 3 seeds about ``change``."""
    evidence = CellEvidence(cell=cell or make_cell(), pairs=make_pairs(ratio), seeds=make_seeds(change))
    return replace(evidence, **changes)


def make_check(cells: Sequence[CellEvidence] = (), **changes: Any) -> Check:
    check = Check(
        id=CHECK_ID,
        schema_version=CHECK_SCHEMA_VERSION,
        program_version="0.1.0",
        mode="against",
        status="complete",
        a=SideInfo(label="main", commit="c0ffee" * 6 + "beef"),
        b=SideInfo(label="working tree", commit="f00d" * 10, changed=("mnist_bench/models/lenet5.py",)),
        matrix_path="benchmarks.yaml",
        dataset="mnist",
        recipe="standard",
        margins=Margins(),
        cells=tuple(cells),
        started_at="2026-11-26T10:15:00Z",
        ended_at="2026-11-26T10:27:30Z",
        budget_s=1200.0,
        spent_s=750.0,
    )
    return replace(check, **changes)


def make_speed(ratio: float = 1.0, low: float | None = None, high: float | None = None, **changes: Any) -> SpeedFinding:
    speed = SpeedFinding(
        decision="pass",
        ratio=Interval(ratio, ratio - 0.02 if low is None else low, ratio + 0.02 if high is None else high),
        pairs=16,
        p_slower=0.4,
        p_within=0.0002,
        alpha=0.0033,
        next_look=None,
    )
    return replace(speed, **changes)


def make_accuracy(change: float = 0.0, identical: int = 0, **changes: Any) -> AccuracyFinding:
    accuracy = AccuracyFinding(
        decision="pass",
        a=0.9712,
        b=0.9712 + change,
        change=Interval(change, change - 0.0009, change + 0.0009),
        seeds=3,
        identical=identical,
        more_seeds=0,
    )
    return replace(accuracy, **changes)


ADVISORIES = (
    Advisory(name="compile time", unit="s", a=10.4, b=11.1),
    Advisory(name="time to first step", unit="s", a=3.0, b=3.1),
    Advisory(name="evaluation throughput", unit="samples/s", a=21_000.0, b=20_500.0),
    Advisory(name="host memory", unit="MiB", a=512.0, b=530.0),
)


def make_verdict(kind: VerdictKind = "pass", cell: Cell | None = None, **changes: Any) -> Verdict:
    """A verdict with the findings that belong to its kind."""
    cell = cell or make_cell()
    text, speed, accuracy = {
        "pass": ("is as fast as before (95 % interval -1 to 2 %, 16 pairs)", make_speed(1.002), make_accuracy(0, 3)),
        "improvement": ("is 20 % faster (18-22 %, 16 pairs): take a new baseline", make_speed(0.8), make_accuracy()),
        "new": ("is new: the reference has no such cell", None, None),
        "regression": ("is 12 % slower (95 % interval 10-14 %, 16 pairs)", make_speed(1.12), make_accuracy(0, 3)),
        "missing": ("is missing: the reference has this cell, the change does not", None, None),
        "failed": ("failed (oom) with the change: out of memory", None, None),
        "inconclusive": ("is undecided after 12 pairs: 6 % slower (-1 to 13 %)", make_speed(1.06, 0.99, 1.13), None),
        "not_comparable": ("cannot be compared: protocol versions 2 and 3", None, None),
    }[kind]
    measured = ADVISORIES if speed else ()
    verdict = Verdict(
        cell=cell, kind=kind, text=f"{cell.id} {text}", speed=speed, accuracy=accuracy, advisories=measured
    )
    return replace(verdict, **changes)


SOLO = Solo(seed=0, b=make_training())

EVIDENCE: dict[VerdictKind, dict[str, Any]] = {
    "pass": {},
    "improvement": {"ratio": 0.8},
    "new": {"sides": "only B", "pairs": (), "seeds": (), "solo": SOLO},
    "regression": {"ratio": 1.12},
    "missing": {"sides": "only A", "pairs": (), "seeds": ()},
    "failed": {"faults": (SideFault(side="B", outcome=Failure(kind="oom", reason="out of memory")),), "seeds": ()},
    "inconclusive": {"pairs": make_pairs(1.065, spread=0.2)},
    "not_comparable": {"differences": ("protocol versions 2 and 3",), "pairs": (), "seeds": ()},
}


def every_kind(**changes: Any) -> tuple[Check, tuple[Verdict, ...]]:
    """A cell for each kind of verdict, in the order of ``KINDS``, with evidence for it."""
    cells = [make_cell("lenet5", batch_size=100 + number) for number in range(len(KINDS))]
    evidence = [make_evidence(cell, **EVIDENCE[kind]) for kind, cell in zip(KINDS, cells, strict=True)]
    verdicts = tuple(make_verdict(kind, cell) for kind, cell in zip(KINDS, cells, strict=True))
    return make_check(evidence, **changes), verdicts


def of_kinds(*kinds: VerdictKind, **changes: Any) -> tuple[Check, tuple[Verdict, ...]]:
    """A cell for each of the kinds named, which may repeat, with the names of real cells."""
    variants = ("eager", "compile", "compile-step", "channels-last", "tutorial")
    models = ("mlp", "cnn", "lenet5")
    cells = [make_cell(models[n % 3], "cpu", 100 * (1 + n // 15), variants[n // 3 % 5]) for n in range(len(kinds))]
    evidence = [make_evidence(cell, **EVIDENCE[kind]) for kind, cell in zip(kinds, cells, strict=True)]
    return make_check(evidence, **changes), tuple(make_verdict(k, c) for k, c in zip(kinds, cells, strict=True))


def hostile(texts: Sequence[str]) -> tuple[Check, tuple[Verdict, ...]]:
    """Every text from outside is one of these: names, reasons, labels, files, notes; with every kind of verdict."""
    cells, verdicts = [], []
    for number, text in enumerate(texts):
        for kind in KINDS:
            cell = Cell(model=text, device=text, batch_size=number, variant=f"{kind}{text}")
            fault = SideFault(side="B", outcome=Skip(reason=text))
            differences = (text,) if kind == "not_comparable" else ()
            cells.append(make_evidence(cell, differences=differences, faults=(fault,) if kind == "failed" else ()))
            advisory = Advisory(name=text, unit=text, a=1.0, b=2.0)
            verdicts.append(make_verdict(kind, cell, text=text, advisories=(advisory,)))
    side = SideInfo(label=texts[0], commit=texts[1], changed=tuple(texts))
    check = make_check(cells, a=side, b=side, matrix_path=texts[0], dataset=texts[1], notes=tuple(texts))
    return check, tuple(verdicts)
