"""The library: frames say what the files say, matrices obey the file's rules, and importing it loads nothing heavy."""

import dataclasses
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from record_factory import RUN_ID, keep, make_cell, make_failed, make_manifest, make_session, make_trial
from run_factory import write_run

import mnist_bench as mb
from mnist_bench.cli import main
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import ConfigError, Interrupted, UsageError
from mnist_bench.running import runner

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "library.ipynb"
AXES = {"models": ["mlp"], "devices": ["cpu"], "batch_sizes": [100], "variants": ["eager"]}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("results"), "mlp", "cnn")
    runner.write_tables(folder)
    return folder.path.parent


def as_read(text: str | Path, like: pd.DataFrame) -> None:
    """A CSV file, or its text, says what the frame does."""
    kinds = {name: str(kind) for name, kind in like.dtypes.items()}
    found = pd.read_csv(text, dtype=kinds, keep_default_na=False, na_values=[""])
    pd.testing.assert_frame_equal(found, like.replace({"": pd.NA}), check_exact=False, rtol=1e-9)


def test_frames_say_what_the_files_and_the_command_say(results, capsys):
    run = mb.load(output_dir=results)
    as_read(run.path / "results.csv", run.table())
    as_read(run.path / "epochs.csv", run.epochs())
    for by in ("device", "variant", "batch_size", "model"):
        main(["compare", str(run.path), "--by", by, "--format", "csv"])
        as_read(io.StringIO(capsys.readouterr().out), run.compare(by=by))
    assert run.compare().attrs == {"by": "device", "reference": "the same cell on the CPU"}
    with pytest.raises(UsageError, match="by: unknown key 'colour'"):
        run.compare(by="colour")


def test_types_do_not_depend_on_what_was_measured(results, tmp_path):
    keep(tmp_path, make_manifest([one := make_failed()]), [one])
    full, empty = (mb.load(output_dir=place) for place in (results, tmp_path))
    for of in (mb.Run.table, mb.Run.epochs, mb.Run.sessions):
        pd.testing.assert_series_equal(of(full).dtypes, of(empty).dtypes)
    assert empty.table()["epoch_s"].isna().all()


def test_two_runs_and_the_turns_of_a_session(tmp_path):
    pair = make_trial(), make_trial(make_cell(variant="compile"))
    for name, ms in (("a", 3.0), ("b", 2.0)):
        session = make_session(pair, [(ms, 1.0), (ms, 0.0)])
        keep(tmp_path / name, make_manifest(pair, run_id=f"20261123T101500Z-00000{name}"), pair, [session])
    a, b = (mb.load(output_dir=tmp_path / name) for name in "ab")
    turns = a.sessions()
    assert (turns["seconds"] / turns["steps"]).tolist()[:3] == [0.003, 0.001, 0.003]
    assert turns[["round", "turn", "steps"]].to_numpy().tolist() == [[1, 1, 10], [1, 2, 10], [2, 1, 10], [2, 2, 0]]
    assert a.compare(b)["speedup"].tolist() == pytest.approx([1.5, 1.0])
    with pytest.raises(UsageError, match="two runs are compared cell by cell"):
        a.compare(b, by="device")


def test_a_notebook_shows_a_table_in_which_no_name_is_markup(results, tmp_path):
    assert "speed-up" in mb.load(output_dir=results)._repr_html_()
    evil = make_trial(make_cell("<b>x</b>"))
    shown = mb.load(keep(tmp_path, make_manifest([evil]), [evil]).path)._repr_html_()
    assert ("&lt;b&gt;x" in shown, "<b>" in shown) == (True, False)


def test_a_matrix_built_here_is_that_of_a_file(tmp_path):
    (tmp_path / "m.yaml").write_text(f"version: 1\nseeds: 2\n{''.join(f'{k}: {v}' + chr(10) for k, v in AXES.items())}")
    built = mb.Matrix(**AXES | {"batch_sizes": np.array([100])}, seeds=range(2))
    assert built == mb.load_matrix(tmp_path / "m.yaml")
    with pytest.raises(ConfigError) as refused:
        mb.Matrix(**AXES | {"models": ["mpl", print]}, seed=3)
    said = str(refused.value)
    assert "models[0].model: unknown model 'mpl'" in said
    assert "models[1].model: unknown model '<built-in" in said
    assert "did you mean 'seeds'" in said


def test_a_run_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is code: add --allow-plugins"):
        mb.run(mb.Matrix(**AXES | {"models": ["my:build"]}), output_dir=tmp_path)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sollo'"):
        mb.run(mb.Matrix(**AXES), output_dir=tmp_path, sollo=True)
    with ThreadPoolExecutor() as elsewhere, pytest.raises(UsageError, match="only the main thread"):
        elsewhere.submit(mb.run, mb.Matrix(**AXES), output_dir=tmp_path).result()
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_is_an_error_that_says_how_to_go_on(results, monkeypatch):
    folder = RunFolder.open(results, "latest")
    stopped = SimpleNamespace(manifest=dataclasses.replace(folder.manifest(), status="interrupted"))
    monkeypatch.setattr("mnist_bench.cli.run.carry_out", lambda *_: (SimpleNamespace(folder=folder), stopped))
    with pytest.raises(Interrupted, match=f"mnist-bench run --resume {RUN_ID} -o {results}"):
        mb.run(mb.Matrix(**AXES), output_dir=results)


def test_importing_loads_nothing_heavy(results):
    program = (
        "import sys, mnist_bench as mb; assert {'load', 'run', 'Matrix'} < {*dir(mb)};"
        "assert not {'numpy', 'msgspec', 'rich'} & {*sys.modules}; mb.load(sys.argv[1]); mb.run;"
        "assert not {'torch', 'pandas', 'pydantic'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program, results / "latest"], check=True)


def test_the_notebook_runs(tmp_path, bench_environ):
    client = NotebookClient(nbformat.read(NOTEBOOK, 4), resources={"metadata": {"path": tmp_path}})
    done = client.execute(env=bench_environ())
    shown = [str(cell.get("outputs")) for cell in done.cells]
    assert "complete, 4 of 4 trials" in shown[3]
    assert (tmp_path / "report.html").stat().st_size > 100_000
