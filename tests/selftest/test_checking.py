"""The gate of a selftest is that of ``check``: what reaches which side's workers, and whose verdicts are counted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from group_kit import FakeWorker
from selftest_kit import LENET5, MATRIX, MLP, PLAIN, make_workshop

from mnist_bench.checks import workbench
from mnist_bench.checks.events import CheckEvent, Forecast
from mnist_bench.cli import main
from mnist_bench.cli import selftest as command
from mnist_bench.data.mnist import proven
from mnist_bench.data.synthetic import write_set
from mnist_bench.errors import Interrupted
from mnist_bench.executors.local import worker_environment
from mnist_bench.gate import speed
from mnist_bench.interrupts import Interrupts
from mnist_bench.models import SELFTEST
from mnist_bench.protocol import Block, BlockDone, Evaluate, Evaluated, Reply, Request, TrainEpoch
from mnist_bench.records import CELL_VARIABLE, DataSet, Floor, TrialSpec
from mnist_bench.selftest import conduct
from mnist_bench.selftest.checking import Gate
from mnist_bench.selftest.instruments import VARIABLE, load_of, loads
from mnist_bench.selftest.rates import summarise
from mnist_bench.selftest.records import CheckResult, Condition, Mislabelled, Slowed
from mnist_bench.stats import Interval

ROOT = Path(__file__).resolve().parents[2]
CELLS = (MLP, LENET5)
SPOILT = DataSet(name="mislabelled", root="/spoilt", sha256="1" * 64)


class Machine:
    """Starts workers that are made up: a step takes longer by a thousandth a row, and wrong labels cost 2 pp."""

    def __init__(self) -> None:
        self.started: list[tuple[TrialSpec, Path, dict[str, str], float, Path]] = []
        self.log: list[str] = []
        self.stop_at: int | None = None

    def __call__(
        self, spec: TrialSpec, log: Path, environ: Mapping[str, str], timeout_s: float, _: Interrupts, root: Path
    ) -> FakeWorker:
        own = worker_environment(environ, spec)
        self.started.append((spec, log, own, timeout_s, root))
        rows = load_of(own[VARIABLE], own[CELL_VARIABLE])[1] if spec.model.model == SELFTEST else 0

        def script(request: Request, number: int) -> Reply | BaseException | None:
            if isinstance(request, TrainEpoch) and len(self.started) == self.stop_at:
                return Interrupted("interrupted")
            if isinstance(request, Block):
                return BlockDone(steps=10, seconds=0.1 * (1 + rows / 1000))
            if isinstance(request, Evaluate) and spec.data == SPOILT:
                return Evaluated(seconds=0.5, correct=9300, samples=10_000, predictions_sha256="e" * 64)
            return None

        worker = FakeWorker(spec, script, self.log)
        worker.pid = os.getpid()  # whose use of the processor is quickly asked for
        return worker

    def side(self, name: str) -> list[tuple[TrialSpec, dict[str, str]]]:
        return [(spec, own) for spec, _, own, _, _ in self.started if spec.cell.variant.endswith(f"@{name}")]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(workbench, "LocalWorker", made)
    return made


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return make_gate(tmp_path)


def make_gate(folder: Path, emit: Callable[[CheckEvent], None] = lambda event: None) -> Gate:
    return Gate(
        folder=folder / "checks",
        root=folder / "root",
        matrix_path=folder / "matrix" / "m.yaml",
        allow_plugins=False,
        emit=emit,
    )


def slowed(folder: Path, rows: Mapping[Any, int]) -> Condition:
    """Side B with work for some of the cells, by the very path of a selftest."""
    found = [Slowed(cell=cell, aim=1.2, rows=rows[cell], measured=Interval(1.2), sessions=4) for cell in CELLS]
    (condition,) = [one for one in conduct.conditions(make_workshop(folder), CELLS, found, None) if one.faulty]
    return condition


def check(gate: Gate, conditions: Sequence[Condition], cells: Sequence[Any] = CELLS, **changes: Any) -> list[Any]:
    usual: dict[str, Any] = {"times": 1, "budget_s": 600.0, "clock": lambda: 0.0, "say": lambda text: None}
    return list(conduct.checks(conditions, cells, run_check=gate, **{**usual, **changes}))


def kinds(result: CheckResult) -> dict[Any, str]:
    return {one.cell: one.kind for one in result.cells}


# ── what reaches whom ────────────────────────────────────────────────────────────────────────────────────────────────


def test_extra_work_reaches_the_workers_of_side_b_alone(gate: Gate, machine: Machine, tmp_path: Path) -> None:
    check(gate, [slowed(tmp_path, {MLP: 50, LENET5: 200})])
    assert len(machine.side("A")) == len(machine.side("B")) > 2 * 2
    for spec, own in machine.side("A"):
        assert load_of(own[VARIABLE], own[CELL_VARIABLE]) == (spec.model.name, 0)
    for spec, own in machine.side("B"):
        rows = {"mlp": 50, "lenet5": 200}[spec.cell.model]
        assert load_of(own[VARIABLE], own[CELL_VARIABLE]) == (spec.model.name, rows)
    assert {spec.data for spec, *_ in machine.started} == {PLAIN.data}


def test_wrong_labels_reach_side_b_alone(gate: Gate, machine: Machine) -> None:
    worse = Condition(name="mislabelled", a=PLAIN, b=replace(PLAIN, data=SPOILT), faulty=frozenset(CELLS), size=(0, 0))
    (result,) = check(gate, [worse])
    assert {spec.data for spec, _ in machine.side("A")} == {PLAIN.data}
    assert {spec.data for spec, _ in machine.side("B")} == {SPOILT}
    assert set(kinds(result).values()) == {"regression"}
    assert {round(one.change, 6) for one in result.cells} == {-0.02}


def test_workers_start_where_the_program_did(gate: Gate, machine: Machine, tmp_path: Path) -> None:
    """Both sides alike: in one folder, with the matrix's own limits, logs in the check's folder."""
    limits = replace(MATRIX.limits, timeout_seconds=77.0)
    side = replace(PLAIN, matrix=replace(MATRIX, limits=limits), environ={"A_SETTING": "1"})
    check(gate, [Condition(name="identical", a=side, b=side)])
    for spec, log, own, timeout_s, root in machine.started:
        assert (root, timeout_s, own["A_SETTING"]) == (tmp_path / "root", 77.0, "1")
        assert spec.plugin_path == str(tmp_path / "matrix")
        assert log.is_relative_to(tmp_path / "checks")
        assert log.parent.name == "logs"


def test_seeds_are_the_matrixs_own_first(gate: Gate, machine: Machine) -> None:
    side = replace(PLAIN, matrix=replace(MATRIX, seeds=(5, 9)))
    worse = replace(side, data=SPOILT)  # predictions differ: more seeds are wanted
    check(gate, [Condition(name="mislabelled", a=side, b=worse, faulty=frozenset(CELLS), size=(0, 0))])
    trained = [spec.seed for spec, _ in machine.side("B") if spec.cell.model == "mlp" and spec.variant.deterministic]
    assert trained == [5, 9, 0, 1]


# ── verdicts, and what they cost ─────────────────────────────────────────────────────────────────────────────────────


def test_each_condition_is_judged_as_it_is(gate: Gate, machine: Machine, tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    found = [
        Slowed(cell=cell, aim=aim, rows=round(1000 * (aim - 1)), measured=Interval(aim), sessions=4)
        for cell in CELLS
        for aim in (1.05, 1.2)
    ]
    spoilt = Mislabelled(data=SPOILT, fraction=0.2, drops=dict.fromkeys(CELLS, 0.02))
    plan = conduct.conditions(workshop, CELLS, found, spoilt)
    ticks = iter(range(100))
    results = check(gate, plan, clock=lambda: 60.0 * next(ticks))
    # 5 % without any noise is told from the 3 % that are tolerated, and from none.
    assert [set(kinds(one).values()) for one in results] == [{"pass"}, *[{"regression"}] * 3]
    assert [summary.red.hits for summary in summarise(plan, results)] == [0, 2, 2, 2]
    assert [summary.red.trials for summary in summarise(plan, results)] == [1, 2, 2, 2]
    assert {(one.check_s, one.verdict_s) for one in summarise(plan, results)} == {(60.0, 30.0)}
    assert {round(cell.ratio, 6) for cell in results[2].cells} == {1.2}
    *timed, mislabelled = results
    assert {cell.pairs for one in timed for cell in one.cells} == {speed.looks(2)[0]}
    assert {cell.pairs for cell in mislabelled.cells} == {0}  # a drop that is shown needs none


def test_the_verdict_of_a_cell_is_its_own(gate: Gate, machine: Machine, tmp_path: Path) -> None:
    (result,) = check(gate, [slowed(tmp_path, {MLP: 0, LENET5: 300})])
    assert kinds(result) == {MLP: "pass", LENET5: "regression"}


def test_only_the_cells_that_are_asked_for_are_checked(gate: Gate, machine: Machine) -> None:
    (result,) = check(gate, [Condition(name="identical", a=PLAIN, b=PLAIN)], cells=(LENET5,))
    assert kinds(result) == {LENET5: "pass"}
    assert {spec.cell.model for spec, *_ in machine.started} == {"lenet5"}


def test_a_floor_of_the_matrix_is_no_finding_of_the_gate(gate: Gate, machine: Machine) -> None:
    """Identical sides that both miss it would be counted as a false alarm."""
    floor = Floor(min_accuracy=0.999, min_train_samples_per_s=1e9)
    side = replace(PLAIN, matrix=replace(MATRIX, expect=(floor,)))
    (result,) = check(gate, [Condition(name="identical", a=side, b=side)])
    assert set(kinds(result).values()) == {"pass"}


def test_a_budget_that_holds_no_look_begins_nothing_and_is_said(tmp_path: Path, machine: Machine) -> None:
    heard: list[CheckEvent] = []
    found, verdicts = make_gate(tmp_path, heard.append)(PLAIN, PLAIN, CELLS, 1.0)
    assert machine.started == []
    assert (found.budget_s, found.status, {one.kind for one in verdicts}) == (1.0, "complete", {"inconclusive"})
    (forecast,) = [event for event in heard if isinstance(event, Forecast)]
    assert forecast.pairs < forecast.first_look


def test_an_interrupt_ends_the_check_which_counts_for_nothing(gate: Gate, machine: Machine) -> None:
    machine.stop_at = 3
    assert check(gate, [Condition(name="identical", a=PLAIN, b=PLAIN)]) == []
    assert len(machine.started) == 3
    assert sum(line.startswith("kill") for line in machine.log) == 3


def test_every_check_has_a_folder_of_its_own(gate: Gate, machine: Machine, tmp_path: Path) -> None:
    for _ in range(2):
        gate(PLAIN, PLAIN, [MLP], 600.0)
    folders = [path for path in (tmp_path / "checks" / "checks").iterdir() if not path.is_symlink()]
    assert len(folders) == 2
    assert {(folder / "pairs.jsonl").read_bytes().count(b"\n") for folder in folders} == {speed.looks(1)[0]}


# ── cells that a check cannot pair ───────────────────────────────────────────────────────────────────────────────────

LOADING = replace(MATRIX, variants=(replace(MATRIX.variants[0], pipeline="torchvision", workers=2),))


def test_a_cell_with_loader_processes_is_trained_but_not_paired(gate: Gate, machine: Machine) -> None:
    side = replace(PLAIN, matrix=LOADING)
    (result,) = check(gate, [Condition(name="identical", a=side, b=side)])
    assert set(kinds(result).values()) == {"not_comparable"}
    assert {spec.id for spec, *_ in machine.started} == {f"{cell.id}@B/s0" for cell in (MLP, LENET5)}


def test_nor_calibrated(tmp_path: Path) -> None:
    said: list[str] = []
    assert conduct.measurable(replace(make_workshop(tmp_path), matrix=LOADING), [MLP], said.append) == ()
    assert said[0].startswith("left out: mlp/cpu/b100/eager: workers: 2: loader processes work on")


# ── by real workers ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_finds_real_work_by_real_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One condition, one pair, one seed: all of a selftest but its calibration (five minutes even of a single cell;
    ``test_injected`` times real workers with it). A single pair may decide here, so it is a gross fault."""
    images = tmp_path / "set"
    write_set(images, seed=5, sizes=(3000, 1000))
    sha256 = proven("synthetic", images, None).sha256
    found = DataSet(name="synthetic", root=str(images), sha256=sha256)
    text = "version: 1\nseeds: 1\nepochs: 1\nmodels: [mlp]\ndevices: [cpu]\nbatch_sizes: [100]\n"
    (tmp_path / "benchmarks.yaml").write_text(f"{text}variants: [{{name: single, threads: 1}}]\n")
    real = conduct.conditions
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # workers start in the folder of this test
    monkeypatch.setattr("mnist_bench.data.resolve", lambda *args, **kwargs: found)
    monkeypatch.setattr(conduct, "measurable", lambda workshop, cells, say: tuple(cells))
    monkeypatch.setattr(conduct, "mislabel", lambda workshop, cells, say: None)
    monkeypatch.setattr(
        conduct,
        "slow_down",
        lambda workshop, cells, say: tuple(
            Slowed(cell=cell, aim=3.0, rows=20_000, measured=Interval(3.0), sessions=4) for cell in cells
        ),
    )
    monkeypatch.setattr(conduct, "conditions", lambda *given: tuple(one for one in real(*given) if one.faulty))
    monkeypatch.setattr(workbench, "PAIR_TOKEN_S", 1.0)
    monkeypatch.setattr(speed, "looks", lambda cells, margins=None: (1,))
    monkeypatch.setattr(speed, "level", lambda cells, margins=None: 0.5)
    assert main(["selftest", "--checks", "1", "--budget", "4m", "--json"]) == 0
    screen = capsys.readouterr()
    report = json.loads(screen.out)
    (condition,), ((cell,),) = report["conditions"], [one["cells"] for one in report["checks"]]
    assert (condition["condition"], condition["red"]["hits"], condition["red"]["trials"]) == ("200 % slower", 1, 1)
    assert (cell["kind"], cell["pairs"], cell["seeds"]) == ("regression", 1, 1)
    assert cell["ratio"] > 1.3
    assert cell["change"] == 0.0, "the work changes no prediction"
    assert report["checks"][0]["seconds"] == condition["check_s"] > 1.0
    assert "pairs a cell fit, 1 make a first look" in screen.err


def test_logs_stay_where_a_worker_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mnist_bench.errors import WorkerError

    (tmp_path / "benchmarks.yaml").write_text(
        "version: 1\nmodels: [mlp]\ndevices: [cpu]\nbatch_sizes: [100]\nvariants: [eager]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for error, code, left in ((WorkerError("it fell over"), 1, 1), (Interrupted("interrupted"), 130, 1)):

        def fail(*_: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(command, "_measure", fail)
        assert main(["selftest"]) == code
        assert len(list(tmp_path.glob("mnist-bench-selftest-*"))) == left
    assert "it fell over" in capsys.readouterr().err


def test_the_environment_names_every_cell() -> None:
    text = loads(MATRIX, dict.fromkeys(CELLS, 3))[VARIABLE]
    assert {load_of(text, f"{cell.id}@{side}") for cell in CELLS for side in "AB"} == {("mlp", 3), ("lenet5", 3)}
