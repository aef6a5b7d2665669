"""Trackers give back every figure of ``results.csv``: TensorBoard's own reader, and a real MLflow server."""

import contextlib
import csv
import io
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from mlflow import MlflowClient
from record_factory import make_failed
from requests.adapters import HTTPAdapter
from run_factory import run_of, write_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_export import EVIL
from urllib3.util import Retry

from mnist_bench import trackers
from mnist_bench.analysis import results, summary
from mnist_bench.cli import main
from mnist_bench.disk.folder import file_name
from mnist_bench.errors import BenchError, UsageError
from mnist_bench.records import Variant
from mnist_bench.table import grouped

EXPORTS = (Path(__file__).resolve().parents[1] / "docs" / "exports.md").read_text("utf-8")
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
SERVER = ("mlflow", "server", "--host", "127.0.0.1", "--workers", "1", "--backend-store-uri", "sqlite:///runs.db")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("results"), "mlp", "cnn", batch_sizes=(100,), seeds=(0, 3))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    place, uri = tmp_path_factory.mktemp("mlflow"), f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", *SERVER, "--artifacts-destination", str(place / "artifacts"), "--port", port]
    running = subprocess.Popen(command, cwd=place, env=os.environ | QUIET, start_new_session=True)
    try:
        patient = requests.Session()
        patient.mount(uri, HTTPAdapter(max_retries=Retry(99, backoff_factor=0.2, backoff_max=1)))
        assert patient.get(f"{uri}/health", timeout=9).ok
        yield uri
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def lines_of(folder, file):
    """The lines of a CSV file by their cells, what is empty left out."""
    found = csv.DictReader(io.StringIO("".join(results.files(summary.Run.read(folder))[file])))
    lines = ({key: value for key, value in line.items() if value} for line in found)
    return grouped(lines, lambda line: "{model}/{device}/b{batch_size}/{variant}".format(**line))


def assert_given_back(line, numbers, texts, digits):
    assert {*line} == {*numbers, *texts}
    assert {key: float(line[key]) for key in numbers} == pytest.approx(numbers, rel=digits)
    assert {key: line[key] for key in texts} == texts


def test_tensorboard(folder, tmp_path, capsys):
    assert main(["export", str(folder.path), "--format", "tensorboard", "--output", str(tmp_path)]) == 0
    assert f"tensorboard --logdir {tmp_path}" in capsys.readouterr().err
    cells, epochs = lines_of(folder, "results.csv"), lines_of(folder, "epochs.csv")
    assert len(cells) == len([*tmp_path.glob("*/*/*")]) - 1 == 12
    for name, (line,) in cells.items():
        read = EventAccumulator(str(tmp_path / folder.run_id / file_name(name))).Reload()
        numbers = {tag: read.Scalars(tag)[0].value for tag in read.Tags()["scalars"] if "/" not in tag}
        tensors = {tag: read.Tensors(tag)[0].tensor_proto for tag in read.Tags()["tensors"] if tag[0] != "_"}
        assert_given_back(line, numbers, {tag: one.string_val[0].decode() for tag, one in tensors.items()}, 1e-7)
        for one in epochs.get(name, ()):
            losses = {each.step: each.value for each in read.Scalars(f"loss/s{one['seed']}")}
            assert losses[int(one["epoch"])] == pytest.approx(float(one["loss"]), rel=1e-7)


def test_mlflow(server, folder, capsys):
    assert main(["export", str(folder.path), "--format", "mlflow", "--tracking-uri", server]) == 0
    said, client = capsys.readouterr(), MlflowClient(server)
    parent = re.search(r"wrote run (\w+) and 12 nested runs, experiment mnist_bench", said.err)[1]
    assert said.out == ""
    assert client.get_run(parent).data.params["cpu"] == "AMD EPYC"
    files = {"results.csv", "results.md", "results.json", "epochs.csv"}
    assert {one.path for one in client.list_artifacts(parent)} == files
    found = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parent}'")
    nested, epochs = {one.info.run_name: one for one in found}, lines_of(folder, "epochs.csv")
    for name, (line,) in lines_of(folder, "results.csv").items():
        data, info = nested[name].data, nested[name].info
        numbers = {key: value for key, value in data.metrics.items() if "/" not in key}
        assert_given_back(line, numbers, {key: tag for key, tag in data.tags.items() if key[:7] != "mlflow."}, 1e-9)
        assert data.params["variant.precision"] == ("bf16" if "bf16" in name else "fp32")
        assert info.status == ("FINISHED" if line["status"] in ("ok", "skipped") else "FAILED")
        own = [(int(one["epoch"]), float(one["accuracy"])) for one in epochs.get(name, ()) if one["seed"] == "3"]
        curve = client.get_metric_history(info.run_id, "accuracy/s3")
        assert sorted((one.step, one.value) for one in curve) == own


def test_no_such_server_and_a_missing_package_are_said(monkeypatch):
    run = run_of([make_failed()])
    with pytest.raises(BenchError, match=r"^--format mlflow: Model registry functionality .*nonsense.*$"):
        trackers.mlflow(run, run.rows, "nonsense://x")
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.summary_pb2", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        list(trackers.tensorboard(run, run.rows))
    with pytest.raises(UsageError, match="pip install mlflow-skinny"):
        trackers.mlflow(run, run.rows, None)


def test_no_name_leads_out_of_the_folder():
    matrix = replace(EVIL.manifest.matrix, variants=[Variant(name=row.cell.variant) for row in EVIL.rows])
    evil = replace(EVIL, manifest=replace(EVIL.manifest, matrix=matrix))
    names = [name for name, _ in trackers.tensorboard(evil, evil.rows)]
    assert len({*names}) == len(names) == len(EVIL.rows) + 1
    assert {(len(Path(name).parts), ".." in Path(name).parts) for name in names} == {(3, False)}


def test_the_script_for_weights_and_biases(folder, monkeypatch):
    logged = []
    one = SimpleNamespace(log=lambda figures, step: logged.append(figures), summary={})
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **about: contextlib.nullcontext(one)))
    script = re.search(r"```python\n(import mnist_bench as mb\nimport wandb\n.*?)```", EXPORTS, re.DOTALL)[1]
    monkeypatch.chdir(folder.path.parent)
    exec(script.replace('"latest"', repr(folder.run_id) + ", '.'"), {})
    assert sum("accuracy" in figures for figures in logged) == len(logged) > 12
    assert one.summary["status"] == "oom" or "test_accuracy" in one.summary
