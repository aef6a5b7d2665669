"""Records for tests: each with the least that must be said, the rest plausible."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import structs

from mnist_bench import records
from mnist_bench.cells import expand
from mnist_bench.disk.folder import SCHEMA_VERSION, RunFolder
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Epochs, Manifest, Matrix, Measurement, Outcome, Session, Trial

RUN_ID = "20261123T101500Z-a1b2c3"
SHA = "0123456789abcdef" * 4


def make_cell(model: str = "mlp", device: str = "cpu", batch_size: int = 100, variant: str = "eager") -> Cell:
    return Cell(model=model, device=device, batch_size=batch_size, variant=variant)


def make_epochs(train_s: Sequence[float] = (2.0, 4.0), accuracy: Sequence[float] = (0.95, 0.975)) -> Epochs:
    count = len(train_s)
    return Epochs(
        train_s=tuple(train_s),
        loader_s=(0.5,) * count,
        loss=tuple(0.5 / (n + 1) for n in range(count)),
        eval_s=(0.25,) * count,
        accuracy=tuple(accuracy),
    )


def make_measurement(**changes: Any) -> Measurement:
    epochs = changes.pop("epochs", make_epochs())
    count = len(epochs.train_s)
    measurement = Measurement(
        epochs=epochs,
        train_samples=60_000 * count,
        eval_samples=10_000 * count,
        class_="A",
        predictions_sha256=SHA,
        order_sha256=SHA[::-1],
        loss_trace=tuple(round(2.3 - n / 10, 1) for n in range(20)),
        phases={"import": 1.25, "data": 0.5, "train": 6.0},
        awake_s=20.0,
        token_s=20.1,
        total_s=15.0,
        time_to_first_step_s=3.0,
        compile_s=None,
        host_peak_bytes=512 << 20,
        device_peak_bytes=None,
        parameters=235_146,
        device_name="AMD EPYC",
        numerics={"threads": 2, "tf32": False, "denormals": "kept"},
        interference={"load": 0.1, "steal": 0.0},
    )
    return structs.replace(measurement, **changes)


def make_trial(cell: Cell | None = None, seed: int = 0, outcome: Outcome | None = None, **changes: Any) -> Trial:
    cell = cell or make_cell()
    trial = Trial(
        id=records.trial_id(cell, seed),
        cell=cell,
        seed=seed,
        recipe="standard",
        dataset="mnist",
        dataset_sha256=SHA,
        outcome=outcome or make_measurement(),
        started_at="2026-11-23T10:15:00Z",
        ended_at="2026-11-23T10:16:00Z",
    )
    return replace(trial, **changes)


def make_failed(cell: Cell | None = None, seed: int = 0, kind: Any = "oom", reason: str = "use less") -> Trial:
    return make_trial(cell, seed, records.Failure(kind=kind, reason=reason))


def make_session(
    members: Sequence[Trial | str], ms_per_step: Sequence[Sequence[float]], *, paired: bool = True, **changes: Any
) -> Session:
    """A session whose rounds are the rows of ``ms_per_step``, one figure per member (0: it has left)."""
    ids = tuple(m if isinstance(m, str) else m.id for m in members)
    rounds = tuple(
        records.Round(
            order=tuple(range(len(ids))),
            steps=tuple(10 if ms else 0 for ms in row),
            seconds=tuple(ms / 100 for ms in row),
        )
        for row in ms_per_step
    )
    steps = {
        name: records.StepTimes(p50_ms=one[0], p95_ms=one[0] * 1.5, p99_ms=one[0] * 2, count=100)
        for name, one in zip(ids, zip(*ms_per_step, strict=True), strict=True)
    }
    session = Session(group="mlp/b100/s0", members=ids, paired=paired, rounds=rounds, steps=steps, stopped="precise")
    return replace(session, **changes)


def make_matrix(**changes: Any) -> Matrix:
    matrix = Matrix(
        models=(records.ModelEntry(name="mlp", model="mlp"),),
        devices=("cpu",),
        batch_sizes=(100,),
        variants=(BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"]),
    )
    return replace(matrix, **changes)


def cell_of(trial: Trial | str) -> tuple[Cell, int]:
    if isinstance(trial, Trial):
        return trial.cell, trial.seed
    model, device, size, variant, seed = trial.split("/")
    return Cell(model=model, device=device, batch_size=int(size[1:]), variant=variant), int(seed[1:])


def holding(matrix: Matrix, trials: Sequence[Trial | str]) -> Matrix:
    """The matrix with whatever cells and seeds these trials have beyond it."""
    found = [cell_of(trial) for trial in trials]
    known = {*expand(matrix)}
    extra = tuple(cell for cell in dict.fromkeys(cell for cell, _ in found) if cell not in known)
    seeds = dict.fromkeys([*matrix.seeds, *(seed for _, seed in found)])
    return replace(matrix, include=matrix.include + extra, seeds=tuple(seeds))


def make_manifest(trials: Sequence[Trial | str] = (), **changes: Any) -> Manifest:
    matrix = holding(changes.pop("matrix", make_matrix()), trials)
    manifest = Manifest(
        run_id=RUN_ID,
        schema_version=SCHEMA_VERSION,
        program_version="0.1.0",
        status="complete",
        matrix=matrix,
        matrix_sha256=SHA,
        matrix_path="benchmarks.yaml",
        options=records.RunOptions(),
        environment=records.Environment(
            python="3.11.7",
            platform="Linux",
            cpu="AMD EPYC",
            cores=2,
            memory_bytes=24 << 30,
            packages={"torch": "2.13.0+cpu"},
            commit="c0ffee" * 6 + "beef",
            dirty=True,
            details={"kernel": "6.18"},
        ),
        dataset=records.DataSet(name="mnist", root="/data", sha256=SHA),
        order=tuple(dict.fromkeys(records.group_id(*cell_of(trial)) for trial in trials)),
        trials=tuple(t if isinstance(t, str) else t.id for t in trials),
        started_at="2026-11-23T10:15:00Z",
    )
    return replace(manifest, **changes)


def keep(
    results: Path, manifest: Manifest, trials: Sequence[Trial] = (), sessions: Sequence[Session] = ()
) -> RunFolder:
    """The run on disk, as the runner would have left it."""
    folder = RunFolder.create(results, manifest)
    with folder.lock():
        for record in (*trials, *sessions):
            folder.append(record)
    return folder
