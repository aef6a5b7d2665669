"""A run in experiment trackers: TensorBoard's event files, runs on an MLflow server; an extra each.

In both a cell is a run of its own: its figures, and those of each seed's epochs by step. What stands in which column of
``results.csv`` is told once (``_cells``). Sources: https://github.com/tensorflow/tensorboard (protocol buffers of the
plug-ins text and hparams), https://mlflow.org/docs/latest/ml/tracking.
"""

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

from mnist_bench.analysis import results
from mnist_bench.analysis.summary import EPOCH_COLUMNS, Run, epochs
from mnist_bench.cells import variant_of
from mnist_bench.disk.folder import file_name
from mnist_bench.errors import BenchError
from mnist_bench.export import facts, known, named, needing
from mnist_bench.figures import Row
from mnist_bench.records import CELL_KEYS, Cell
from mnist_bench.table import exact, grouped, plain

EPOCH_FIGURES = ("train_s", "train_samples_per_s", "loader_s", "loss", "eval_s", "accuracy")
EXPERIMENT = "mnist_bench"  # of MLflow, where MLFLOW_EXPERIMENT_NAME names no other
MOST_METRICS = 1000  # that a server takes at once

Point = tuple[str, float, int]  # a figure: its name, value and step


class _Cell(NamedTuple):
    """A cell for a tracker: what it is, its figures, and what is no number."""

    name: str
    status: str
    settings: Mapping[str, Any]
    points: Sequence[Point]
    texts: Mapping[str, str]


def _cells(run: Run, rows: Sequence[Row]) -> Iterator[_Cell]:
    lines = (dict(zip(EPOCH_COLUMNS, line, strict=True)) for line in epochs(run))
    of_cell = grouped(lines, lambda line: Cell(**{key: line[key] for key in CELL_KEYS}))
    for name, row in named(rows):
        columns = known(row)
        numbers = {key: value for key, value in columns.items() if type(value) in (int, float)}
        by_epoch = [
            (f"{key}/s{one['seed']}", one[key], one["epoch"])
            for one in of_cell.get(row.cell, ())
            for key in EPOCH_FIGURES
            if one[key] is not None
        ]
        yield _Cell(
            name=name,
            status=row.status,
            settings={key: columns.get(key, "") for key in CELL_KEYS} | _variant(run, row),
            points=[*((key, value, 0) for key, value in numbers.items()), *by_epoch],
            texts={key: str(exact(value)) for key, value in columns.items() if key not in numbers},
        )


def _variant(run: Run, row: Row) -> dict[str, Any]:
    settings = asdict(variant_of(run.manifest.matrix, row.cell.variant)).items()
    written = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in settings if key != "name"}
    return {f"variant.{key}": plain(value) if type(value) is str else value for key, value in written.items()}


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def tensorboard(run: Run, rows: Sequence[Row]) -> Iterator[tuple[str, bytes]]:
    """Event files by their names: one of the whole run with its table as text, one of each cell.

    Figures have about seven digits there: TensorBoard shows no wider floats.

    Raises:
        UsageError: the package is missing.
    """
    with needing("tensorboard", of="tensorboard"):
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
    start_s = _seconds(run.manifest.started_at)

    def file(name: str, told: Sequence[tuple[int, Any]]) -> tuple[str, bytes]:
        return f"{run.manifest.run_id}/{name}/events.out.tfevents.{start_s:.0f}.mnist_bench", _events(start_s, told)

    def texts(named: Mapping[str, str]) -> list[tuple[int, Any]]:
        return [(0, text_pb(key, text.encode("utf-8", "backslashreplace"))) for key, text in named.items()]

    yield file("run", texts({"results": results.document(run.manifest, rows).markdown()}))
    for cell in _cells(run, rows):
        settings = {key: "" if value is None else value for key, value in cell.settings.items()}
        about = (0, hparams_pb(settings, trial_id=cell.name, start_time_secs=start_s))
        points = [(n, Summary(value=[Summary.Value(tag=key, simple_value=one)])) for key, one, n in cell.points]
        yield file(file_name(cell.name), [about, *points, *texts(cell.texts)])


def _events(start_s: float, told: Sequence[tuple[int, Any]]) -> bytes:
    """The file of these steps and summaries."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=start_s, file_version="brain.Event:2").SerializeToString())
    for step, summary in told:
        writer.write(Event(wall_time=start_s, step=step, summary=summary).SerializeToString())
    return file.getvalue()


def mlflow(run: Run, rows: Sequence[Row], uri: str | None) -> str:
    """Writes a run with a nested run for each cell; the tables are artifacts of the first.

    Args:
        uri: the server; None: as MLflow itself decides (``MLFLOW_TRACKING_URI``, ...).

    Returns:
        What was written, and where.

    Raises:
        UsageError: the package is missing.
        BenchError: the server is not there, or refuses what it is sent.
    """
    # Of its own it tries for minutes where no server is, and prints two lines for each run.
    for name, value in {"HTTP_REQUEST_MAX_RETRIES": "2", "SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}.items():
        os.environ.setdefault(f"MLFLOW_{name}", value)
    with needing("mlflow-skinny", of="mlflow"):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    try:
        client = MlflowClient(tracking_uri=uri)
        return _write_runs(client, run, rows)
    except (MlflowException, ImportError, OSError) as error:
        raise BenchError(f"--format mlflow: {plain(str(error))[:500]}") from error


def _write_runs(client: Any, run: Run, rows: Sequence[Row]) -> str:
    from mlflow.entities import Metric, Param

    manifest, name = run.manifest, os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    start_ms, end_ms = (
        int(1000 * _seconds(at)) for at in (manifest.started_at, manifest.ended_at or manifest.started_at)
    )

    def begin(name: str, settings: Mapping[str, Any], points: Sequence[Point], tags: Mapping[str, str]) -> str:
        made = str(client.create_run(experiment, start_ms, tags, run_name=name).info.run_id)
        client.log_batch(made, params=[Param(key, plain(str(value))) for key, value in settings.items()])
        for first in range(0, len(points), MOST_METRICS):
            some = points[first : first + MOST_METRICS]
            client.log_batch(made, [Metric(key, float(value), start_ms, step) for key, value, step in some])
        return made

    parent = begin(manifest.run_id, facts(run), (), {})
    for file, parts in results.files(run).items():
        client.log_text(parent, "".join(parts), file)
    for cell in _cells(run, rows):
        own = begin(cell.name, cell.settings, cell.points, {"mlflow.parentRunId": parent, **cell.texts})
        client.set_terminated(own, "FINISHED" if cell.status in ("ok", "skipped") else "FAILED", end_ms)
    client.set_terminated(parent, "FINISHED" if manifest.status == "complete" else "KILLED", end_ms)
    return f"wrote run {parent} and {len(rows)} nested runs, experiment {name}, to {client.tracking_uri}"
