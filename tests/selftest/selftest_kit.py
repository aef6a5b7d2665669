"""Checks that were never made, for the parts of a selftest that only count them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from record_factory import SHA, make_cell

from mnist_bench.gate.records import (
    CellEvidence,
    Check,
    Margins,
    ProcessPair,
    SideInfo,
    SpeedFinding,
    Verdict,
    VerdictKind,
)
from mnist_bench.records import BUILTIN_VARIANTS, Cell, DataSet, Matrix, ModelEntry
from mnist_bench.selftest.records import CellResult, CheckResult, Side
from mnist_bench.selftest.sessions import Workshop
from mnist_bench.stats import Interval

MLP, LENET5 = make_cell("mlp"), make_cell("lenet5")
MATRIX = Matrix(
    models=(ModelEntry(name="mlp", model="mlp"), ModelEntry(name="lenet5", model="lenet5")),
    devices=("cpu",),
    batch_sizes=(100,),
    variants=(BUILTIN_VARIANTS["eager"],),
)
DATA = DataSet(name="mnist", root="/nowhere", sha256=SHA)
PLAIN = Side(matrix=MATRIX, environ={}, data=DATA)


def make_workshop(folder: Path) -> Workshop:
    return Workshop(
        matrix=MATRIX,
        data=PLAIN.data,
        folder=folder,
        plugin_path=str(folder),
        allow_plugins=False,
        environ={"PATH": "/bin"},
        interrupts=None,  # type: ignore[arg-type]
    )


def made_check(kinds: dict[Cell, VerdictKind], *, complete: bool = True) -> tuple[Check, tuple[Verdict, ...]]:
    """A check with twelve pairs a cell, and its verdicts."""
    pair = ProcessPair(number=0, log_ratio=0.1, rounds=())
    check = Check(
        id="a",
        schema_version=1,
        program_version="0",
        mode="against",
        status="complete" if complete else "interrupted",
        a=SideInfo(label="A", commit=None),
        b=SideInfo(label="B", commit=None),
        matrix_path="benchmarks.yaml",
        dataset="mnist",
        recipe="standard",
        margins=Margins(),
        cells=tuple(CellEvidence(cell=cell, pairs=(pair,) * 12) for cell in kinds),
        started_at="2026-11-25T00:00:00Z",
    )
    speed = SpeedFinding(
        decision="fail",
        ratio=Interval(1.1, 1.05, 1.15),
        pairs=12,
        p_slower=0.0,
        p_within=1.0,
        alpha=0.01,
        next_look=None,
    )
    return check, tuple(Verdict(cell=cell, kind=kind, text="", speed=speed) for cell, kind in kinds.items())


def result(condition: str, kinds: Sequence[VerdictKind], seconds: float = 120.0, pairs: int = 12) -> CheckResult:
    """A check of mlp and lenet5, in this order."""
    cells = tuple(
        CellResult(cell=cell, kind=kind, pairs=pairs, seeds=1, ratio=1.0, change=0.0)
        for cell, kind in zip((MLP, LENET5), kinds, strict=False)
    )
    return CheckResult(condition=condition, seconds=seconds, cells=cells)
