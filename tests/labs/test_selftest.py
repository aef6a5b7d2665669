"""A selftest from its command line to its workers, which are made up; and what is put on side B, by real ones."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from group_kit import FakeWorker
from record_factory import make_cell

from mnist_bench.catalogue import FILE_NAMES, SELFTEST
from mnist_bench.cells import expand, model_of
from mnist_bench.cli import main
from mnist_bench.data import cache_root, raw_folder, verify
from mnist_bench.data.mnist import TRAIN_LABELS_FILE, proven, read_labels
from mnist_bench.data.synthetic import write_set
from mnist_bench.errors import DataError, Interrupted, UsageError, WorkerError
from mnist_bench.gate.bench import CheckObserver, Setting
from mnist_bench.gate.sides import Side
from mnist_bench.labs.selftest import Bench, spoil
from mnist_bench.labs.selftest_calibration import instrumented
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

MLP, LENET5 = make_cell("mlp"), make_cell("lenet5")
MATRIX = Matrix(
    models=(ModelEntry(name="mlp", model="mlp"), ModelEntry(name="lenet5", model="lenet5")),
    devices=("cpu",),
    batch_sizes=(100,),
    variants=(BUILTIN_VARIANTS["eager"],),
)
TEXT = "version: 1\nseeds: 1\nmodels: [mlp, lenet5]\ndevices: [cpu]\nbatch_sizes: [100]\nvariants: [eager]\n"


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

    def loads(self, side: str, model: str) -> list[int]:
        """The rows of work that workers of a side were started with, since the first check."""
        name = f"{model}/cpu/b100/eager"
        mine = [
            one for one in self.started if (one[0].cell.id, one[0].side) == (name, side) and "checks" in one[1].parts
        ]
        loads = [json.loads(environ[LOAD_VARIABLE]) for _, _, environ, *_ in mine if LOAD_VARIABLE in environ]
        return sorted({one[name][1] for one in loads})


@pytest.fixture
def images(tmp_path: Path) -> DataSet:
    write_set(tmp_path / "set", seed=5, sizes=(400, 100))
    return proven("synthetic", tmp_path / "set", None)


@pytest.fixture
def machine(tmp_path: Path, images: DataSet, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """In a folder with a matrix."""
    made = Machine()
    (tmp_path / "here").mkdir()
    (tmp_path / "here/benchmarks.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("mnist_bench.gate.bench.LocalWorker", made)
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
    assert {one["condition"]: (one["red"]["hits"], one["red"]["trials"]) for one in found["conditions"]} == {
        "identical": (0, 1),
        "5 % slower": (2, 2),
        "10 % slower": (2, 2),
        "20 % slower": (2, 2),
        "mislabelled": (2, 2),
    }
    assert {cell["kind"] for cell in found["checks"][0]["cells"]} == {"pass"}
    assert [round(cell["change"], 6) for cell in found["checks"][4]["cells"]] == [-0.02, -0.02]
    assert min(cell["pairs"] for cell in found["checks"][0]["cells"]) >= 10
    # What reached whom: work and wrong labels side B alone, all else both alike.
    assert (machine.loads("A", "mlp"), machine.loads("B", "mlp")) == ([0], [50, 100, 200])
    assert {spec.data.sha256 for spec, *_ in machine.started if spec.side == "A"} == {images.sha256}
    assert {root for *_, root in machine.started} == {tmp_path / "here"}
    assert {spec.plugin_path for spec, *_ in machine.started} == {str(tmp_path / "here")}
    assert not list(tmp_path.glob("mnist-bench-selftest-*")), "nothing is left"


def test_the_table_and_its_csv(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--checks", "2", "--filter", "model=mlp"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    start = lines.index(next(line for line in lines if line.startswith("identical")))
    assert [line.split("  ")[0] for line in lines[start + 1 : start + 5]] == [
        *(f"{aim} % slower" for aim in (5, 10, 20)),
        "mislabelled",
    ]
    assert "0/2" in lines[start]
    assert "2/2" in lines[start + 3]
    assert main(["selftest", "--checks", "1", "--format", "csv"]) == 0
    screen = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(screen.out)))
    assert [(row["red"], row["of"]) for row in rows] == [("0", "1"), *[("2", "2")] * 4]
    assert "identical: 1 check cannot rule out" in screen.err


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
    said = run(code=5)["said"]
    assert f"left out: {MLP.id}: no such device here" in said
    text = TEXT.replace("[eager]", "[{name: loading, pipeline: torchvision, workers: 2}]")
    Path("benchmarks.yaml").write_text(text)
    assert "left out: mlp/cpu/b100/loading: workers: 2: loader processes work on" in run(code=5)["said"]


def test_a_floor_of_the_matrix_is_no_finding_of_the_gate(run: Run) -> None:
    """Identical sides that both miss it would be counted as a false alarm."""
    Path("benchmarks.yaml").write_text(f"{TEXT}expect: [{{min_accuracy: 0.999}}]\n")
    assert run("--filter", "model=mlp")["conditions"][0]["red"]["hits"] == 0


def test_seeds_are_the_matrixs_own_first(run: Run, machine: Machine) -> None:
    Path("benchmarks.yaml").write_text(TEXT.replace("seeds: 1", "seeds: [5, 9]"))
    run("--filter", "model=mlp")
    specs = [one[0] for one in machine.started if one[0].variant.deterministic]
    assert [spec.seed for spec in specs if spec.data.name == "mislabelled"][-6:] == [5, 9, 0, 1, 2, 3]


def test_a_budget_that_holds_no_look_is_said(run: Run) -> None:
    found = run("--filter", "model=mlp", "--budget", "1s")
    assert "too little" in found["said"]
    assert {cell["kind"] for check in found["checks"] for cell in check["cells"]} == {"inconclusive"}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--budget", "8"], "--budget: '8' is no time"),
        (["--filter", "model=cnn"], "unknown model 'cnn'"),
        (["missing.yaml"], "no such file"),
        (["--checks", "0"], "'0' is not a whole number from 1 to 1000"),
    ],
)
def test_bad_input_is_refused_at_once(
    machine: Machine, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    try:
        code = main(["selftest", *words])
    except SystemExit as left:
        code = left.code  # type: ignore[assignment]
    assert code == 2
    assert problem in capsys.readouterr().err
    assert machine.started == []


def test_only_the_models_change() -> None:
    cell = make_cell("cnn", batch_size=1000)
    matrix = replace(MATRIX, include=(cell,))
    changed = instrumented(matrix, [MLP, cell])
    assert expand(changed) == (MLP, cell)
    assert model_of(changed, "mlp") == ModelEntry(name="mlp", model=SELFTEST, optimizer="sgd", lr=0.01)
    assert (model_of(changed, "cnn").model, model_of(changed, "cnn").optimizer) == (SELFTEST, "adam")
    with pytest.raises(UsageError, match="recipe: tutorial"):
        instrumented(replace(MATRIX, recipe="tutorial"), [MLP])


# ── mislabelled data ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_share_of_the_labels_is_wrong_and_nothing_else(images: DataSet, tmp_path: Path) -> None:
    data, fraction = spoil(images, tmp_path / "spoilt", 0.3, seed=1)
    folders = [raw_folder(Path(one.root)) for one in (images, data)]
    old, new = (read_labels(folder / TRAIN_LABELS_FILE) for folder in folders)
    assert fraction == np.mean(old != new)
    assert 0.2 < fraction <= 0.3
    assert sorted(old) == sorted(new), "shuffled among themselves"
    for name in FILE_NAMES:
        one, other = ((folder / name).read_bytes() for folder in folders)
        assert (one == other) == (name != TRAIN_LABELS_FILE)


def test_it_is_a_verified_set_of_its_own_that_nothing_remembers(images: DataSet, tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    data, _ = spoil(images, tmp_path / "spoilt", 0.3, seed=1)
    assert data.sha256 != images.sha256
    verify(data, environ=environ)
    assert not cache_root(environ).exists()
    verify(images, environ=environ)
    labels = tmp_path / "spoilt/MNIST/raw" / TRAIN_LABELS_FILE
    content = bytearray(labels.read_bytes())
    content[-1] = (content[-1] + 1) % 10
    labels.write_bytes(content)
    with pytest.raises(DataError, match="selftest` again"):
        verify(data, environ=environ)


# ── by real workers ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    write_set(tmp_path / "set", seed=5, sizes=(3000, 1000))
    matrix = replace(MATRIX, epochs=1, variants=(replace(BUILTIN_VARIANTS["eager"], threads=1),))  # busy machines
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(Path(__file__).parents[2])}
    plain = Side(
        name="A",
        label="A",
        root=tmp_path,
        matrix_path=tmp_path / "benchmarks.yaml",
        matrix=matrix,
        environ=environ,
        data=proven("synthetic", tmp_path / "set", None),
    )
    with Interrupts() as interrupts:
        setting = Setting(
            a=plain,
            b=replace(plain, name="B"),
            budget_s=0.0,
            clock=time.monotonic,
            started_s=0.0,
            interrupts=interrupts,
            observer=CheckObserver(),
        )
        yield Bench(setting=setting, matrix=matrix, folder=tmp_path, say=print)


def test_real_workers_take_longer_with_more_work(bench: Bench) -> None:
    # About twice a step on the machine that the guess was made for; a tenth of it is enough to be seen.
    assert math.exp(bench.pair(MLP, 5000, 0).log_ratio) > 1.1


def test_from_wrong_labels_a_real_worker_learns_nothing(bench: Bench) -> None:
    data, _ = spoil(bench.plain.data, bench.folder / "spoilt", 1.0, seed=0)
    assert bench.accuracy(make_cell("mlp", batch_size=10), data, 0) < 0.4  # with the right ones above 0.6
