"""A selftest: calibration and counting by themselves, the command with made-up workers, a pair of real ones."""

import json
import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from group_kit import FakeWorker
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_cell

from mnist_bench import config
from mnist_bench.analysis.ratios import PROCESS_SD
from mnist_bench.catalogue import FILE_NAMES, SELFTEST
from mnist_bench.cells import expand, model_of
from mnist_bench.cli import main
from mnist_bench.data import raw_folder, verify
from mnist_bench.data.mnist import TRAIN_LABELS_FILE, proven, read_idx
from mnist_bench.data.synthetic import write_set
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import DataError, Interrupted, WorkerError
from mnist_bench.gate import sides
from mnist_bench.gate.evidence import Margins
from mnist_bench.gate.judge import Verdict, VerdictKind
from mnist_bench.gate.samples import find_speed
from mnist_bench.labs import faults
from mnist_bench.labs.faults import AIMS, MOST_ROWS, PROBES, ROW_FLOPS, SESSIONS, Bench, Fault, Rows
from mnist_bench.labs.selftest import COLUMNS, Checked, Experiment
from mnist_bench.records import Cell, ModelEntry, TrialSpec
from mnist_bench.running.process import Interrupts
from mnist_bench.running.protocol import LOAD_VARIABLE, Block, BlockDone, Evaluate, Evaluated, Prepare, Unavailable
from mnist_bench.stats import FloatArray, Interval
from mnist_bench.table import Table

MLP, LENET5 = make_cell("mlp"), make_cell("lenet5")
TEXT = "version: 1\nseeds: 1\nmodels: [mlp, lenet5]\ndevices: [cpu]\nbatch_sizes: [100]\nvariants: [eager]\n"
MATRIX = config.parse(TEXT, source="benchmarks.yaml", allow_plugins=False)

# ── calibration ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Sessions:
    """On a machine where a row takes ``row_s``, extra work at all ``overhead_s``, and processes differ by ``sd``."""

    def __init__(self, step_s: float, row_s: float, overhead_s: float = 0.0, sd: float = 0.0, seed: int = 0) -> None:
        self.step_s, self.row_s, self.overhead_s, self.sd = step_s, row_s, overhead_s, sd
        self.rng = random.Random(seed)
        self.count = 0

    def slower(self, rows: int) -> float:
        return (self.overhead_s + rows * self.row_s) / self.step_s

    def __call__(self, rows: Rows, times: int) -> FloatArray:
        self.count += times
        logs = [[np.log1p(self.slower(n)) + self.rng.gauss(0, self.sd) for n in rows] for _ in range(times)]
        return np.expm1(logs)

    def calibrated(self) -> list[tuple[float, float, Interval]]:
        """Of each aim: the aim, what the rows cost in truth, and what is stated."""
        rows, sizes = faults.calibrate(self.step_s, self)
        assert self.count <= PROBES + 2 * SESSIONS
        return list(zip(AIMS, map(self.slower, rows), sizes, strict=True))


@given(step_s=st.floats(2e-3, 1.0), flops=st.floats(3e9, 2e12), overhead=st.floats(0, 0.02))
def test_rows_meet_the_aims_whatever_the_speed(step_s, flops, overhead):
    sessions = Sessions(step_s, ROW_FLOPS / flops, overhead * step_s)
    for aim, truth, stated in sessions.calibrated():
        assert stated.estimate == pytest.approx(truth), "stated is what is so"
        assert truth == pytest.approx(aim, abs=0.01) or truth == sessions.slower(MOST_ROWS)


def test_noise_between_processes_does_not_lead_astray():
    """Over 300 calibrations: near the aim, what is stated is unbiased, and its interval holds the truth."""
    held, errors = [], []
    for seed in range(100):
        for aim, truth, stated in Sessions(4e-3, ROW_FLOPS / 3e10, 1e-5, PROCESS_SD, seed).calibrated():
            assert truth == pytest.approx(aim, abs=0.035)
            held.append((stated.low or 0.0) <= truth <= (stated.high or 0.0))
            errors.append(stated.estimate - truth)
    assert np.mean(held) > 0.93
    assert abs(np.mean(errors)) < 0.002


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def fault(cell: str, size: float) -> Fault:
    return Fault(cell=cell, injected=50, size=Interval(size))


@pytest.mark.parametrize(
    ("faulty", "kinds", "line"),
    [
        # A false alarm is counted once a check, a fault found by cell; what crashed was found by nobody.
        (
            [],
            [("regression", "failed"), ("pass", "inconclusive"), ("missing", "pass")],
            "2/3 67 % [9 %, 99 %] 1 1.0 10",
        ),
        ([], [("pass", "pass")] * 2, "0/2 0 % [0 %, 84 %] 0 1.0 10"),
        ([], [("improvement",)], "0/1 0 % [0 %, 98 %] 0 2.0 10"),
        ([], [()], "0/0 0"),  # nothing could be judged
        (
            [fault(MLP.id, 0.098), fault(LENET5.id, 0.103)],
            [("regression", "failed"), ("regression", "inconclusive")],
            "9.8-10.3 % 2/4 50 % [7 %, 93 %] 1 1.0 10",
        ),
        ([fault(MLP.id, 0.05)], [("regression", "pass")], "5.0 % 1/1 100 % [3 %, 100 %] 0 1.0 10"),  # of one cell
    ],
)
def test_an_experiment_is_a_line_of_the_table(faulty, kinds, line):
    """Of checks of mlp and lenet5, in this order, 2 minutes and 10 process pairs each; the last took long."""
    speed = find_speed([0.0] * 10, 3, Margins())

    def judged(cell: Cell, kind: VerdictKind) -> Verdict:
        return Verdict(cell=cell, kind=kind, text="", speed=speed)

    checks = [Checked(seconds=120.0, cells=list(map(judged, (MLP, LENET5), both))) for both in kinds]
    one = Experiment(name="this", a=None, b=None, faults=faulty, checks=checks)
    shown = list(Table("", COLUMNS, [one]).terminal(100))[-1]
    assert " ".join(str(shown).split()) == f"this {line}"


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Machine:
    """Starts workers that are made up: a step takes longer by a thousandth a row, and wrong labels cost 2 pp."""

    def __init__(self) -> None:
        self.started: list[tuple[Any, ...]] = []  # what LocalWorker takes
        self.error: BaseException | None = None  # of the first worker with 200 rows of work in a check
        self.missing = ""  # a device

    def __call__(self, spec: TrialSpec, log: Path, environ: dict[str, str], *others: Any) -> FakeWorker:
        self.started.append((spec, log, environ, *others))
        loads = json.loads(environ.get(LOAD_VARIABLE, "{}"))
        rows = loads[spec.cell.id][1] if spec.model.model == SELFTEST else 0
        if self.error is not None and rows == 200 and "checks" in log.parts:
            raise self.error

        def script(request: Any, number: int) -> Any:
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
def images(tmp_path):
    write_set(tmp_path / "set", seed=5, sizes=(400, 100))
    return proven("synthetic", tmp_path / "set")


@pytest.fixture
def machine(tmp_path, images, monkeypatch):
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


@pytest.fixture
def run(machine, capsys):
    """The document of a selftest, and what it said."""

    def selftest(*words: str, code: int = 0) -> dict[str, Any]:
        assert main(["selftest", "--checks", "1", "--json", *words]) == code
        screen = capsys.readouterr()
        return {"said": screen.err, **(json.loads(screen.out) if screen.out else {})}

    return selftest


def test_from_calibration_to_the_last_check(run, machine, images, tmp_path):
    found = run()
    assert "at most 5 checks of 2 cells: 0.7 h" in found["said"]
    # Without any noise 5 % is told from the 3 % that are tolerated, and from none.
    assert [(one["condition"], one["measured"], one["red"], one["of"]) for one in found["conditions"]] == [
        ("identical", None, 0, 1),
        ("5 % slower", "5.0 %", 2, 2),
        ("10 % slower", "10.0 %", 2, 2),
        ("20 % slower", "20.0 %", 2, 2),
        ("mislabelled", "2.0 pp", 2, 2),
    ]
    rows = [[(one["cell"], one["injected"]) for one in condition["faults"]] for condition in found["conditions"][:4]]
    assert rows == [[], *([(MLP.id, count), (LENET5.id, count)] for count in (50, 100, 200))]
    cells = [condition["checks"][0]["cells"] for condition in found["conditions"]]
    assert {(cell["kind"], cell["speed"]["count"] >= 9) for cell in cells[0]} == {("pass", True)}
    assert [cell["accuracy"]["change"]["estimate"] for cell in cells[4]] == pytest.approx([-0.02, -0.02])
    # What reached whom: work and wrong labels side B alone, all else both alike.
    assert (machine.loads("A"), machine.loads("B")) == ({0}, {50, 100, 200})
    assert {spec.data.sha256 for spec, *_ in machine.started if spec.side == "A"} == {images.sha256}
    where = {(root, python, spec.plugin_path) for spec, *_, root, python in machine.started}
    assert where == {(tmp_path / "here", sys.executable, str(tmp_path / "here"))}
    assert not list(tmp_path.glob("mnist-bench-selftest-*")), "nothing is left"


@pytest.mark.parametrize(
    ("error", "code", "left"),
    [
        (Interrupted("interrupted"), 130, 0),  # the check ends well
        (KeyboardInterrupt("interrupted"), 130, 0),
        (WorkerError("a worker left"), 1, 1),  # its log is there
        (OSError(28, "No space left on device"), 1, 0),
    ],
)
def test_whatever_ends_it_loses_nothing_that_was_measured(run, machine, tmp_path, error, code, left):
    machine.error = error
    found = run("--filter", "model=mlp", code=code)
    assert [len(one["checks"]) for one in found["conditions"]] == [1, 1, 1, 0, 0]
    assert str(error) in found["said"]
    assert len(list(tmp_path.glob("mnist-bench-selftest-*"))) == left


def test_cells_that_cannot_be_measured_are_left_out_and_said(run, machine):
    machine.missing = "cpu"
    assert f"left out: {MLP.id}: no such device here" in run(code=5)["said"]
    text = TEXT.replace("[eager]", "[{name: loading, pipeline: torchvision, workers: 2}]")
    Path("benchmarks.yaml").write_text(text)
    assert "left out: mlp/cpu/b100/loading: workers: 2: loader processes work out of turn" in run(code=5)["said"]


def test_seeds_are_the_matrixs_own_first_and_its_floor_is_no_finding(run, machine):
    """Identical sides that both miss a floor would be counted as a false alarm."""
    Path("benchmarks.yaml").write_text(TEXT.replace("seeds: 1", "seeds: [5, 9]\nexpect: [{min_accuracy: 0.999}]"))
    assert run("--filter", "model=mlp")["conditions"][0]["red"] == 0
    specs = [one[0] for one in machine.started if one[0].variant.deterministic]
    assert [spec.seed for spec in specs if spec.data.name == "mislabelled"][-6:] == [5, 9, 0, 1, 2, 3]


def test_a_budget_that_holds_no_look_is_said(run):
    found = run("--filter", "model=mlp", "--budget", "1s")
    assert "too little" in found["said"]
    assert [one["inconclusive"] for one in found["conditions"]] == [1] * 5


def test_only_the_models_change():
    cell = make_cell("cnn", batch_size=1000)
    changed = faults.instrumented(replace(MATRIX, include=(cell,)), [MLP, cell])
    assert expand(changed) == (MLP, cell)
    assert model_of(changed, "mlp") == ModelEntry(name="mlp", model=SELFTEST, optimizer="sgd", lr=0.01)
    assert (model_of(changed, "cnn").model, model_of(changed, "cnn").optimizer) == (SELFTEST, "adam")


def test_a_share_of_the_labels_is_wrong_in_a_verified_set(images, tmp_path):
    data, fraction = faults.spoil(images, tmp_path / "spoilt", 0.3, seed=1)
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


def test_real_workers_are_paired_and_have_the_work(images, tmp_path, monkeypatch):
    monkeypatch.setattr(sides, "PAIR_TOKEN_S", 0.2)
    same = {"label": "", "root": Path.cwd(), "matrix_path": tmp_path, "matrix": MATRIX, "environ": os.environ}
    a, b = (sides.Side(name=name, data=images, **same) for name in "AB")
    with Interrupts() as interrupts:
        (tmp_path / "logs").mkdir()
        gate = sides.Bench(
            folder=RunFolder(tmp_path), a=a, b=b, clock=monotonic, interrupts=interrupts, observer=sides.CheckObserver()
        )
        bench = Bench(gate=gate, matrix=MATRIX, say=print)
        assert all(min(one.steps) > 0 for one in bench.pair(MLP, 50, 1).rounds)
        with pytest.raises(WorkerError, match="negative dimension"):  # the rows have reached a worker of B
            bench.pair(MLP, -1, 2)
