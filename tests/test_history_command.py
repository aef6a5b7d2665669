"""``mnist-bench history`` as it is called: what it prints, in every format, and what it loads."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from record_factory import make_cell, make_epochs, make_failed, make_manifest, make_matrix, make_measurement, make_trial

from mnist_bench.cli import main
from mnist_bench.disk.folder import RunFolder
from mnist_bench.records import ModelEntry, Trial
from mnist_bench.report.history import over_runs, render_history
from mnist_bench.trends import METRICS, gather

EVIL = "</script><img src=x onerror=alert(1)>"
RATE = "train_samples_per_s"


def add_run(
    results: Path, number: int, trials: Sequence[Trial], cpu: str = "AMD EPYC", status: str = "complete"
) -> None:
    names = sorted({trial.cell.model for trial in trials})
    manifest = make_manifest(
        trials,
        run_id=f"202611{number:02}T101500Z-a1b2c3",
        started_at=f"2026-11-{number:02}T10:15:00Z",
        matrix=make_matrix(models=tuple(ModelEntry(name=name, model=name) for name in names)),
        environment=replace(make_manifest().environment, cpu=cpu, dirty=number == 2),
        status=status,
    )
    folder = RunFolder.create(results, manifest)
    with folder.lock():
        for trial in trials:
            folder.append(trial)


def timed(seconds: float, model: str = "mlp", batch_size: int = 100) -> Trial:
    outcome = make_measurement(epochs=make_epochs([seconds], [0.9]), train_samples=60_000)
    return make_trial(make_cell(model=model, batch_size=batch_size), 0, outcome)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    add_run(folder, 1, [timed(6.0), timed(3.0, batch_size=1000)])
    add_run(folder, 2, [timed(5.0), make_failed(make_cell(batch_size=1000), reason="use less")])
    add_run(folder, 3, [timed(1.0), timed(2.0, "cnn")], cpu="Intel Xeon")
    return folder


def run(capsys: pytest.CaptureFixture[str], results: Path, *words: str, code: int = 0) -> tuple[str, str]:
    assert main(["history", "-o", str(results), *words]) == code
    out, err = capsys.readouterr()
    return out, err


@pytest.mark.parametrize("width", [80, 120])
def test_table(capsys: pytest.CaptureFixture[str], results: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out, err = run(capsys, results, "mlp/*/b100/*")
    lines = out.splitlines()
    assert lines[0] == "mlp/cpu/b100/eager"
    assert lines[1] == "  Intel Xeon, 2 cores, torch 2.13.0+cpu · mnist, standard, 2 epochs"
    assert "60,000 samples/s, 1 run" in lines[2]
    assert lines[5] == "  AMD EPYC, 2 cores, torch 2.13.0+cpu · mnist, standard, 2 epochs"
    assert lines[6] == "  ▁█  10,000 to 12,000 samples/s, 2 runs"
    assert lines[9].split() == ["20261102T101500Z-a1b2c3", "2026-11-02", "c0ffeec+", "ok", "12,000", "+20.0", "%"]
    assert max(map(len, lines)) <= width
    assert err == "mnist-bench: reading 3 runs that are new or have changed\n"
    assert run(capsys, results)[1] == "", "the second time there is nothing to say"


def test_failed_runs_stand_in_the_list(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    out, _ = run(capsys, results, "b1000")
    assert "█·" in out or "▄·" in out
    assert " oom" in out


def test_json_csv_and_md_hold_the_same_points(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    rows = json.loads(run(capsys, results, "--json")[0])
    assert [(row["model"], row["batch_size"], row["run_id"][6:8], row["value"]) for row in rows] == [
        ("cnn", 100, "03", 30_000.0),
        ("mlp", 100, "03", 60_000.0),
        ("mlp", 100, "01", 10_000.0),
        ("mlp", 100, "02", 12_000.0),
        ("mlp", 1000, "01", 20_000.0),
        ("mlp", 1000, "02", None),
    ]
    assert rows[3]["change"] == pytest.approx(0.2)
    assert rows[1]["series"] != rows[2]["series"] == rows[3]["series"], "another machine is another series"
    table = list(csv.DictReader(io.StringIO(run(capsys, results, "--format", "csv")[0])))
    assert [row["run_id"] for row in table] == [row["run_id"] for row in rows]
    assert list(table[0]) == list(rows[0])
    assert len(run(capsys, results, "--format", "md")[0].splitlines()) == 2 + len(rows)


def test_filter_metric_and_last(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    words = ("--filter", "model=mlp,batch_size=100", "--metric", "epoch_s", "--last", "1", "--json")
    rows = json.loads(run(capsys, results, *words)[0])
    assert [(row["metric"], row["value"]) for row in rows] == [("epoch_s", 1.0), ("epoch_s", 5.0)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["lenet"],
            "no cell is named like 'lenet' (known: cnn/cpu/b100/eager, mlp/cpu/b100/eager, mlp/cpu/b1000/eager)",
        ),
        (["--filter", "model=lenet"], "--filter: unknown model 'lenet' (known: cnn, mlp)"),
        (["--filter", "model"], "is not of the form key=value"),
        (["--page", "/dev/null/x.html"], "--page /dev/null/x.html: cannot be written: File exists; name another place"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], results: Path, words: list[str], message: str) -> None:
    assert message in run(capsys, results, *words, code=2)[1]


@pytest.mark.parametrize("words", [["--last", "0"], ["--last", "x"], ["--metric", "speed"]])
def test_bad_flags(capsys: pytest.CaptureFixture[str], results: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["history", "-o", str(results), *words])


def test_nothing_measured(capsys: pytest.CaptureFixture[str], results: Path, tmp_path: Path) -> None:
    out, err = run(capsys, tmp_path / "nowhere", code=5)
    assert (out, "nothing measured in" in err) == ("", True)
    assert json.loads(run(capsys, tmp_path / "nowhere", "--json", code=5)[0]) == []
    assert run(capsys, results, "--metric", "device_peak_mib", code=5)[0].count("not measured in") == 4


def test_broken_and_running_runs_are_named(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    (results / "20261102T101500Z-a1b2c3" / "manifest.json").write_text("{")
    add_run(results, 4, [timed(1.0)], status="running")
    out, err = run(capsys, results)
    assert "warning: run 20261102T101500Z-a1b2c3 is left out: " in err
    assert "run 20261104T101500Z-a1b2c3 is running: 1 of 1 trials are finished" in err
    assert "20261102" not in out
    assert " running " in out


def test_hostile_names_stay_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    evil = f"{EVIL}\x1b[31m\n[bold]|=1+1"
    add_run(tmp_path / "r", 1, [timed(1.0, evil)])
    for words in ([], ["--format", "md"]):
        out, _ = run(capsys, tmp_path / "r", *words)
        assert "\x1b" not in out
        assert "[bold]" in out or "\\[bold\\]" in out
    assert "<img" not in out
    assert len(out.splitlines()) == 3
    (row,) = json.loads(run(capsys, tmp_path / "r", "--json")[0])
    assert row["model"] == evil


def test_page_is_one_file_in_which_names_are_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    results, page = tmp_path / "r", tmp_path / "deep" / "page.html"
    add_run(results, 1, [timed(1.0, EVIL)])
    add_run(results, 2, [timed(2.0, EVIL), make_failed(make_cell(batch_size=7), reason=EVIL)])
    (results / "20261103T101500Z-a1b2c3").mkdir()
    (results / "20261103T101500Z-a1b2c3" / "manifest.json").write_text("{")
    out, err = run(capsys, results, "--page", str(page))
    assert EVIL in out
    assert f"page: {page}" in err
    text = page.read_text()
    assert "<img src=x" not in text
    assert text.count("</script>") == 3, "the data and the two programs"
    assert "run 20261103T101500Z-a1b2c3 is left out" in text
    assert 'http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;' in text


def test_page_goes_where_a_link_leads(capsys: pytest.CaptureFixture[str], results: Path, tmp_path: Path) -> None:
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    page.write_text("old")
    link.symlink_to(page)
    run(capsys, results, "--page", str(link))
    assert link.is_symlink()
    assert "<html" in page.read_text("utf-8")


def test_page_draws_each_cell_with_a_figure() -> None:
    from test_trends import make_point

    points = [make_point(0), make_point(1, 1100.0), make_point(2, None), make_point(3, series="other", machine="Intel")]
    points += [make_point(4, None, cell={"model": "cnn"})]
    plot = over_runs(gather(points), METRICS[RATE], 2)
    (panel,) = plot.panels
    assert panel.title == "mlp/cpu/b100/eager"
    assert [value["value"] for value in panel.values] == [1000.0, 1000.0, 1100.0, None]
    assert len({value["series"] for value in panel.values}) == len(plot.legend) == 2
    assert panel.values[1]["time"] == 1_793_528_100_000
    assert (
        "AMD EPYC, 2 cores, torch 2.13.0 · mnist, standard, 2 epochs: 2 runs, 1,000 to 1,100; 1,100 in the newest"
        in panel.caption
    )
    assert plot.table is not None
    assert len(plot.table.lines) == 4


def test_page_without_a_figure_says_so() -> None:
    assert "No run has this figure." in render_history((), RATE, 5, [], "0", bundle="")


def test_points_without_a_time_are_in_the_table_alone() -> None:
    from test_trends import make_point

    plot = over_runs(gather([make_point(0, started_at="yesterday"), make_point(1)]), METRICS[RATE], 5)
    assert len(plot.panels[0].values) == 1
    assert plot.table is not None
    assert len(plot.table.lines) == 2


def test_query_loads_nothing_slow(results: Path) -> None:
    """An index that is up to date is read without what takes long to import."""
    main(["history", "-o", str(results)])
    slow = ("torch", "pydantic", "numpy", "pandas", "scipy", "yaml", "filelock", "altair", "jinja2")
    code = (
        f"import sys\nfrom mnist_bench.cli import main\nmain(['history', '-o', {str(results)!r}])\n"
        f"sys.exit(' '.join(m for m in {slow} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mlp/cpu/b100/eager" in done.stdout
