"""A selftest: calibration and counting by themselves, the command with workers that are made up, and by real ones."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from group_kit import FakeWorker
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell
from scipy.stats import binom

from mnist_bench.analysis.ratios import PROCESS_SD
from mnist_bench.catalogue import FILE_NAMES, SELFTEST
from mnist_bench.cells import expand, model_of
from mnist_bench.cli import main
from mnist_bench.data import raw_folder, verify
from mnist_bench.data.mnist import TRAIN_LABELS_FILE, proven, read_idx
from mnist_bench.data.synthetic import write_set
from mnist_bench.errors import DataError, Interrupted, UsageError, WorkerError
from mnist_bench.gate.evidence import Margins
from mnist_bench.gate.judge import Verdict, VerdictKind
from mnist_bench.gate.samples import find_speed
from mnist_bench.labs import selftest
from mnist_bench.labs.selftest import MOST_ROWS, ROW_FLOPS, SESSIONS, TOLERANCE, Rows, instrumented, spoil
from mnist_bench.labs.selftest_report import COLUMNS, CheckResult, Slowed, Summary, rate, summarise
from mnist_bench.records import BUILTIN_VARIANTS, DataSet, Matrix, ModelEntry, TrialSpec
from mnist_bench.run.process import Interrupts
from mnist_bench.run.protocol import (
    LOAD_VARIABLE,
    Block,
    BlockDone,
    Evaluate,
    Evaluated,
    Prepare,
    Reply,
    Request,
    Unavailable,
)
from mnist_bench.stats import FloatArray
from mnist_bench.table import Table

MLP, LENET5 = make_cell("mlp"), make_cell("lenet5")
MATRIX = Matrix(
    models=(ModelEntry(name="mlp", model="mlp"), ModelEntry(name="lenet5", model="lenet5")),
    devices=("cpu",),
    batch_sizes=(100,),
    variants=(BUILTIN_VARIANTS["eager"],),
)
TEXT = "version: 1\nseeds: 1\nmodels: [mlp, lenet5]\ndevices: [cpu]\nbatch_sizes: [100]\nvariants: [eager]\n"

# ── calibration ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Sessions:
    """On a machine where a row takes ``row_s``, extra work at all ``overhead_s``, and processes differ by ``sd``."""

    def __init__(self, step_s: float, row_s: float, overhead_s: float = 0.0, sd: float = 0.0, seed: int = 0) -> None:
        self.step_s, self.row_s, self.overhead_s, self.sd = step_s, row_s, overhead_s, sd
        self.rng = random.Random(seed)
        self.count = 0

    def ratio(self, rows: int) -> float:
        return (self.step_s + self.overhead_s + rows * self.row_s) / self.step_s

    def __call__(self, rows: Rows, times: int) -> FloatArray:
        self.count += times
        return np.array([[math.log(self.ratio(n)) + self.rng.gauss(0, self.sd) for n in rows] for _ in range(times)])

    def calibrated(self) -> list[Slowed]:
        return selftest.calibrate("mlp", self.step_s, self)


@given(step_s=st.floats(2e-3, 1.0), flops=st.floats(3e9, 2e12), overhead=st.floats(0, 0.02))
def test_rows_meet_the_aims_whatever_the_speed(step_s: float, flops: float, overhead: float) -> None:
    sessions = Sessions(step_s, ROW_FLOPS / flops, overhead * step_s)
    for one in sessions.calibrated():
        assert one.measured.estimate == pytest.approx(sessions.ratio(one.rows), abs=TOLERANCE), "stated is what is so"
        assert one.measured.estimate == pytest.approx(one.aim, abs=1.01 * TOLERANCE) or one.rows == MOST_ROWS


def test_noise_between_processes_does_not_lead_astray() -> None:
    """Over 300 calibrations: near the aim, what is stated is unbiased, and its interval holds the truth."""
    held, errors = [], []
    for seed in range(100):
        sessions = Sessions(4e-3, ROW_FLOPS / 3e10, 1e-5, PROCESS_SD, seed)
        for one in sessions.calibrated():
            truth, (low, high) = sessions.ratio(one.rows), (one.measured.low, one.measured.high)
            assert truth == pytest.approx(one.aim, abs=0.035)
            held.append((low or math.inf) <= truth <= (high or 0.0))
            errors.append(one.measured.estimate - truth)
        assert sessions.count <= selftest.PROBES + selftest.ATTEMPTS * SESSIONS
    assert np.mean(held) > 0.93
    assert abs(np.mean(errors)) < 0.002


def test_sessions_with_about_as_many_rows_are_scaled_and_others_left_out() -> None:
    seen = [(10, math.log(2.0)), (40, math.log(1.08)), (50, math.log(1.10)), (60, math.log(1.12))]
    found = selftest.pooled("mlp", 1.1, 50, seen)
    assert (found.sessions, found.measured.estimate) == (3, pytest.approx(1.1))
    assert found.measured.low is not None
    assert found.measured.low < 1.1 * math.exp(-2 * PROCESS_SD / 2), "never surer than its processes"


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────

Kinds = Sequence[tuple[VerdictKind, VerdictKind]]
BOTH, NONE = frozenset({MLP.id, LENET5.id}), frozenset[str]()
PASSES: Kinds = [("pass", "pass")] * 2


def summary(
    kinds: Kinds, faulty: frozenset[str] = NONE, size: str = "", seconds: Sequence[float] = (120.0,) * 9
) -> Summary:
    """Of checks of mlp and lenet5, in this order, with 10 process pairs each."""
    speed = find_speed([0.0] * 10, 2, Margins())
    results = [
        CheckResult(
            condition="this",
            seconds=each_s,
            cells=tuple(
                Verdict(cell=cell, kind=kind, text="", speed=speed)
                for cell, kind in zip((MLP, LENET5), both, strict=True)
            ),
        )
        for both, each_s in zip(kinds, seconds, strict=False)
    ]
    return summarise("this", faulty, size, [*results, replace(results[0], condition="another")])


@pytest.mark.parametrize(
    ("faulty", "kinds", "red", "others"),
    [
        # A false alarm is counted once a check, a fault found by cell; what crashed was found by nobody.
        (NONE, [("regression", "failed"), ("pass", "inconclusive"), ("missing", "pass")], (2, 3), (2, 1, 0)),
        (BOTH, [("regression", "failed"), ("regression", "inconclusive")], (2, 4), (0, 1, 0)),
        (frozenset({MLP.id}), [("regression", "pass")], (1, 1), (0, 0, 0)),  # the other cell has no fault
        (NONE, [("improvement", "not_comparable")], (0, 1), (1, 0, 1)),
        (NONE, [("not_comparable", "not_comparable")], (0, 0), (0, 0, 2)),
    ],
)
def test_counts(faulty: frozenset[str], kinds: Kinds, red: tuple[int, int], others: tuple[int, int, int]) -> None:
    found = summary(kinds, faulty)
    assert (found.red, found.of) == red
    assert (found.passed, found.inconclusive, found.unjudged) == others
    assert (found.rate is None, found.pairs is None, found.verdict_s is None) == (red[1] == 0,) * 3


def test_cost_is_the_median_of_a_check_and_of_a_verdict() -> None:
    found = summary([*PASSES, ("pass", "pass")], seconds=(60.0, 120.0, 600.0))
    assert (found.check_s, found.verdict_s, found.pairs) == (120.0, 60.0, 10.0)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_clopper_and_pearsons(counts: tuple[int, int]) -> None:
    hits, trials = counts
    found = rate(hits, trials)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.estimate == hits / trials <= found.high
    # At either end, what was seen or more extreme has a chance of 2.5 %.
    assert binom.sf(hits - 1, trials, found.low) == pytest.approx(0.025 if hits else 1.0, rel=1e-6)
    assert binom.cdf(hits, trials, found.high) == pytest.approx(0.025 if hits < trials else 1.0, rel=1e-6)


def test_a_condition_is_a_line_of_a_table() -> None:
    conditions = (
        summary(PASSES),
        summary([("regression", "inconclusive")] * 2, BOTH, "9.8-10.3 %"),
        summary([("not_comparable", "pass")], frozenset({MLP.id}), "1.2 pp"),
    )
    table = Table("", COLUMNS, conditions)
    assert [" ".join(str(line).split()) for line in table.terminal(100)][-3:] == [
        "this 0/2 0 % 0-84 % 4 0 2.0 1.0 10",
        "this 9.8-10.3 % 2/4 50 % 7-93 % 0 2 2.0 1.0 10",
        "this 1.2 pp 0/0 0 0 2.0 2.0 10 1",
    ]
    assert table.records()[1]["rate_low"] == pytest.approx(0.0676, abs=1e-4)


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Machine:
    """Starts workers that are made up: a step takes longer by a thousandth a row, and wrong labels cost 2 pp."""

    def __init__(self) -> None:
        self.started: list[tuple[TrialSpec, Path, Mapping[str, str], float, Path]] = []
        self.error: BaseException | None = None  # of the first worker with 200 rows of work in a check
        self.missing = ""  # a device

    def __call__(
        self, spec: TrialSpec, log: Path, environ: Mapping[str, str], timeout_s: float, _: Interrupts, root: Path
    ) -> FakeWorker:
        self.started.append((spec, log, environ, timeout_s, root))
        loads = json.loads(environ.get(LOAD_VARIABLE, "{}"))
        rows = loads[spec.cell.id][1] if spec.model.model == SELFTEST else 0
        if self.error is not None and rows == 200 and "checks" in log.parts:
            raise self.error

        def script(request: Request, number: int) -> Reply | None:
            if isinstance(request, Prepare) and spec.cell.device == self.missing:
                return Unavailable(scope="device", reason="no such device here")
            if isinstance(request, Block):
                return BlockDone(steps=10, seconds=0.1 * (1 + rows / 1000))
            if isinstance(request, Evaluate) and spec.data.name == "mislabelled":
                return Evaluated(seconds=0.5, correct=9300, samples=10_000, predictions_sha256="e" * 64)
            return None

        worker = FakeWorker(spec, script, [])
        worker.pid = os.getpid()  # whose use of the processor is quickly asked for
        return worker

    def loads(self, side: str) -> set[int]:
        """The rows of work that workers of the mlp of a side were started with, since the first check."""
        mine = [one for one in self.started if (one[0].cell, one[0].side) == (MLP, side) and "checks" in one[1].parts]
        return {json.loads(environ[LOAD_VARIABLE])[MLP.id][1] for _, _, environ, *_ in mine if LOAD_VARIABLE in environ}


@pytest.fixture
def images(tmp_path: Path) -> DataSet:
    write_set(tmp_path / "set", seed=5, sizes=(400, 100))
    return proven("synthetic", tmp_path / "set")


@pytest.fixture
def machine(tmp_path: Path, images: DataSet, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """In a folder with a matrix."""
    made = Machine()
    (tmp_path / "here").mkdir()
    (tmp_path / "here/benchmarks.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("mnist_bench.gate.sides.LocalWorker", made)
    monkeypatch.setattr("mnist_bench.data.resolve", lambda *args, **kwargs: images)
    return made


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(machine: Machine, capsys: pytest.CaptureFixture[str]) -> Run:
    """The document of a selftest, and what it said."""

    def selftest(*words: str, code: int = 0) -> dict[str, Any]:
        assert main(["selftest", "--checks", "1", "--json", *words]) == code
        screen = capsys.readouterr()
        return {"said": screen.err, **(json.loads(screen.out) if screen.out else {})}

    return selftest


def test_from_calibration_to_the_last_check(run: Run, machine: Machine, images: DataSet, tmp_path: Path) -> None:
    found = run()
    assert "at most 5 checks of 2 cells, 8m each: 0.7 h" in found["said"]
    assert [(one["cell"], one["rows"]) for one in found["slowed"]] == [
        (f"{model}/cpu/b100/eager", rows) for model in ("mlp", "lenet5") for rows in (50, 100, 200)
    ]
    assert found["mislabelled"]["drops"] == pytest.approx({MLP.id: 0.02, LENET5.id: 0.02})
    # Without any noise 5 % is told from the 3 % that are tolerated, and from none.
    assert [(one["condition"], one["size"], one["red"], one["of"]) for one in found["conditions"]] == [
        ("identical", "", 0, 1),
        ("5 % slower", "5.0 %", 2, 2),
        ("10 % slower", "10.0 %", 2, 2),
        ("20 % slower", "20.0 %", 2, 2),
        ("mislabelled", "2.0 pp", 2, 2),
    ]
    cells = [check["cells"] for check in found["checks"]]
    assert {(cell["kind"], cell["speed"]["count"] >= 10) for cell in cells[0]} == {("pass", True)}
    assert [cell["accuracy"]["change"]["estimate"] for cell in cells[4]] == pytest.approx([-0.02, -0.02])
    # What reached whom: work and wrong labels side B alone, all else both alike.
    assert (machine.loads("A"), machine.loads("B")) == ({0}, {50, 100, 200})
    assert {spec.data.sha256 for spec, *_ in machine.started if spec.side == "A"} == {images.sha256}
    assert {(root, spec.plugin_path) for spec, *_, root in machine.started} == {
        (tmp_path / "here", str(tmp_path / "here"))
    }
    assert not list(tmp_path.glob("mnist-bench-selftest-*")), "nothing is left"


def test_csv_has_a_line_a_condition_and_notes_beside_it(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--checks", "1", "--filter", "model=mlp", "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 6
    assert "95 %: the rates that so few of them cannot rule out" in err


@pytest.mark.parametrize(
    ("error", "code", "left"),
    [
        (Interrupted("interrupted"), 130, 0),
        (KeyboardInterrupt("interrupted"), 130, 0),
        (WorkerError("a worker left"), 1, 1),  # its log is there
        (UsageError("the matrix has gone"), 2, 0),
        (OSError(28, "No space left on device"), 1, 0),
    ],
)
def test_whatever_ends_it_loses_nothing_that_was_measured(
    run: Run, machine: Machine, tmp_path: Path, error: Exception, code: int, left: int
) -> None:
    machine.error = error
    found = run("--filter", "model=mlp", code=code)
    assert [one["condition"] for one in found["checks"]] == ["identical", "5 % slower", "10 % slower"]
    assert str(error) in found["said"]
    assert len(list(tmp_path.glob("mnist-bench-selftest-*"))) == left


def test_cells_that_cannot_be_measured_are_left_out_and_said(run: Run, machine: Machine) -> None:
    machine.missing = "cpu"
    assert f"left out: {MLP.id}: no such device here" in run(code=5)["said"]
    text = TEXT.replace("[eager]", "[{name: loading, pipeline: torchvision, workers: 2}]")
    Path("benchmarks.yaml").write_text(text)
    assert "left out: mlp/cpu/b100/loading: workers: 2: loader processes work on" in run(code=5)["said"]


def test_seeds_are_the_matrixs_own_first_and_its_floor_is_no_finding(run: Run, machine: Machine) -> None:
    """Identical sides that both miss a floor would be counted as a false alarm."""
    Path("benchmarks.yaml").write_text(TEXT.replace("seeds: 1", "seeds: [5, 9]\nexpect: [{min_accuracy: 0.999}]"))
    assert run("--filter", "model=mlp")["conditions"][0]["red"] == 0
    specs = [one[0] for one in machine.started if one[0].variant.deterministic]
    assert [spec.seed for spec in specs if spec.data.name == "mislabelled"][-6:] == [5, 9, 0, 1, 2, 3]


def test_a_budget_that_holds_no_look_is_said(run: Run) -> None:
    found = run("--filter", "model=mlp", "--budget", "1s")
    assert "too little" in found["said"]
    assert {cell["kind"] for check in found["checks"] for cell in check["cells"]} == {"inconclusive"}


def test_only_the_models_change() -> None:
    cell = make_cell("cnn", batch_size=1000)
    changed = instrumented(replace(MATRIX, include=(cell,)), [MLP, cell])
    assert expand(changed) == (MLP, cell)
    assert model_of(changed, "mlp") == ModelEntry(name="mlp", model=SELFTEST, optimizer="sgd", lr=0.01)
    assert (model_of(changed, "cnn").model, model_of(changed, "cnn").optimizer) == (SELFTEST, "adam")


def test_a_share_of_the_labels_is_wrong_in_a_verified_set(images: DataSet, tmp_path: Path) -> None:
    data, fraction = spoil(images, tmp_path / "spoilt", 0.3, seed=1)
    folders = [raw_folder(Path(one.root)) for one in (images, data)]
    old, new = (read_idx(folder / TRAIN_LABELS_FILE) for folder in folders)
    assert fraction == np.mean(old != new)
    assert 0.2 < fraction <= 0.3
    assert sorted(old) == sorted(new), "shuffled among themselves"
    for name in FILE_NAMES:
        one, other = ((folder / name).read_bytes() for folder in folders)
        assert (one == other) == (name != TRAIN_LABELS_FILE)
    verify(data)
    verify(images)
    labels = folders[1] / TRAIN_LABELS_FILE
    labels.write_bytes(labels.read_bytes()[:-1] + bytes([(new[-1] + 1) % 10]))
    with pytest.raises(DataError, match="selftest` again"):
        verify(data)
