"""``reproduce``: what is run, how it is judged, and the command from its flags to its files."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from record_factory import make_cell, make_epochs, make_failed, make_manifest, make_measurement, make_trial

from mnist_bench import cells, stats
from mnist_bench.analysis.summary import Run
from mnist_bench.cli import main
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import Interrupted, UsageError
from mnist_bench.labs import reproduce as lab
from mnist_bench.labs.reproduce import (
    EpochFigures,
    ModelFigures,
    Reproduction,
    agreeing,
    document,
    epochs_table,
    errata_remarks,
    model_figures,
    page,
    rate_answer,
    reproduction,
    standard_matrix,
    to_json,
    tutorial_matrix,
)
from mnist_bench.records import DataSet, ImageSets, Manifest, Matrix, Measurement, RunOptions, Trial
from mnist_bench.run import runner
from mnist_bench.run.observer import Observer

FIGURES = lab.read()
TUTORIAL, STANDARD = "20261123T101500Z-aaaaaa", "20261123T101500Z-bbbbbb"
SPREAD = (-0.2, 0.0, 0.2)  # pp, by seed


def make_trials(
    matrix: Matrix, off: dict[str, float] | None = None, leave_out: Sequence[str] = (), spread: Sequence[float] = SPREAD
) -> list[Trial]:
    """A trial per entry and seed: the published column, ``spread`` by seed, ``off`` (pp) by entry; the test images 1 pp
    lower under the tutorial's recipe, 0.5 pp higher under the standard one."""
    trials = []
    for entry in matrix.models:
        for seed in matrix.seeds:
            shift = (off or {}).get(entry.name, 0.0) + (spread[seed] if len(matrix.seeds) > 1 else 0.0)
            accuracy = [(figure + shift) / 100 for figure in FIGURES[entry.model][: matrix.epochs]]
            gain = -0.01 if matrix.recipe == "tutorial" else 0.005
            sets = ImageSets(train=accuracy[-1], test=accuracy[-1] + gain)
            outcome = make_measurement(epochs=make_epochs([4.0] * matrix.epochs, accuracy), final=sets)
            trials.append(make_trial(make_cell(entry.name), seed, outcome, recipe=matrix.recipe))
    return [trial for trial in trials if trial.cell.model not in leave_out]


def make_run(matrix: Matrix, run_id: str = TUTORIAL, **changes: Any) -> Manifest:
    names = [f"{cell.id}/s{seed}" for cell in cells.expand(matrix) for seed in matrix.seeds]
    groups = tuple(group for group, _ in cells.groups(cells.expand(matrix), matrix.seeds))
    return make_manifest(
        names,
        matrix=matrix,
        matrix_sha256=cells.fingerprint(matrix),
        run_id=run_id,
        order=groups,
        options=RunOptions(score_both=True, companion=STANDARD if run_id == TUTORIAL else None),
        **changes,
    )


def run_of(manifest: Manifest, trials: Sequence[Trial]) -> Run:
    return Run(manifest=manifest, trials=trials, sessions=())


def text_of(result: Reproduction, table: int) -> list[tuple[str, ...]]:
    return document(result).tables[table].texts()[1]


def make_result(
    off: dict[str, float] | None = None, seeds: tuple[int, ...] = (0, 1, 2), epochs: int = 10, **changes: Any
) -> Reproduction:
    tutorial = replace(tutorial_matrix("resident"), seeds=seeds, epochs=epochs)
    standard = standard_matrix(tutorial)
    return reproduction(
        FIGURES,
        run_of(make_run(tutorial), make_trials(tutorial, off, **changes)),
        run_of(make_run(standard, STANDARD), make_trials(standard)),
    )


# ── what is run ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_published_figures_are_whole() -> None:
    assert {model: len(column) for model, column in FIGURES.items()} == {"mlp": 10, "cnn": 10, "lenet5": 10}
    assert (FIGURES["mlp"][0], FIGURES["cnn"][6], FIGURES["lenet5"][-1]) == (84.11, 88.81, 98.22)
    assert all(80 < figure < 100 for column in FIGURES.values() for figure in column)


def test_a_gap_in_the_published_figures_is_found() -> None:
    with pytest.raises(ValueError, match="mlp: epoch 1 where 0 is due"):
        lab.parse("model,epoch,accuracy_percent\nmlp,1,87.53\n")


def test_what_is_run_is_what_was_published() -> None:
    matrix = tutorial_matrix("resident")
    assert (matrix.recipe, matrix.epochs, matrix.batch_sizes, matrix.devices) == ("tutorial", 10, (100,), ("cpu",))
    assert (matrix.dataset, matrix.timing.budget_seconds, len(matrix.seeds)) == ("mnist", 0.0, 3)
    assert {entry.model for entry in matrix.models} == FIGURES.keys()
    rates = [model_figures(entry, make_trials(matrix), FIGURES) for entry in matrix.models if entry.model == "cnn"]
    assert [each.lr for each in rates if each] == [0.001, 0.01]  # erratum 4
    standard = standard_matrix(replace(matrix, seeds=(4, 5), epochs=3))
    assert (standard.recipe, standard.seeds, standard.epochs) == ("standard", (4,), 3)
    assert [entry.name for entry in standard.models] == ["cnn", "lenet5"]


def test_the_tutorials_own_loops() -> None:
    (variant,) = tutorial_matrix("tutorial").variants
    assert (variant.pipeline, variant.fused_optimizer) == ("tutorial", False)


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_would_agree_is_one_more_seed() -> None:
    low, high = agreeing([0.90, 0.91, 0.92])
    half = scipy.stats.t.ppf(0.975, 2) * 1.0 * math.sqrt(4 / 3)
    assert (low, high) == (pytest.approx(91 - half), pytest.approx(91 + half))


def test_seeds_that_happen_to_agree_are_not_a_narrow_interval() -> None:
    low, high = agreeing([0.9, 0.9, 0.9])
    binomial = 100 * math.sqrt(0.9 * 0.1 / 60_000)
    assert (high - low) / 2 == pytest.approx(scipy.stats.t.ppf(0.975, 2) * binomial * math.sqrt(4 / 3))


def test_one_seed_is_held_to_a_percentage_point() -> None:
    assert agreeing([0.9196]) == (pytest.approx(90.96), pytest.approx(92.96))


@given(st.lists(st.floats(0.5, 0.99), min_size=2, max_size=8), st.floats(-0.1, 0.1))
def test_an_interval_moves_with_its_seeds(values: list[float], shift: float) -> None:
    low, high = stats.prediction_interval(values)
    moved = stats.prediction_interval([value + shift for value in values])
    assert moved == (pytest.approx(low + shift, abs=1e-9), pytest.approx(high + shift, abs=1e-9))
    narrow = stats.t_interval(values)
    assert low <= sum(values) / len(values) <= high
    assert narrow.low is None or narrow.high is None or (low <= narrow.low + 1e-12 and narrow.high <= high + 1e-12)


def test_three_seeds_in_their_spread_and_out_of_it() -> None:
    verdicts = {model.name: model.verdict for model in make_result({"lenet5": 1.5, "mlp": -0.5}).models}
    assert verdicts["mlp"] == "within the seeds' spread"  # 0.5 pp of +-0.99
    assert verdicts["lenet5"] == "outside the seeds' spread"


def test_one_seed_says_that_it_is_one() -> None:
    verdicts = {model.name: model.verdict for model in make_result({"lenet5": 1.5, "mlp": -0.9}, seeds=(0,)).models}
    assert verdicts["mlp"] == "within 1 pp (one seed)"
    assert verdicts["lenet5"] == "over 1 pp off (one seed)"


def test_a_short_look_is_judged_at_its_last_epoch() -> None:
    model = make_result({"mlp": 0.25}, epochs=2).models[0]
    assert (len(model.epochs), model.final.epoch, model.final.published) == (2, 1, 87.53)
    assert model.final.difference == pytest.approx(0.25)
    assert model.rms == pytest.approx(0.25)


# ── the question of the rate ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("off", "words"),
    [
        ({"cnn-lr0.01": 7.0}, "fits lr 0.001; lr 0.001 is the closer"),
        ({"cnn": 7.0}, "fits lr 0.01; lr 0.01 is the closer"),
        ({"cnn": 3.0, "cnn-lr0.01": 7.0}, "fits neither rate; lr 0.001 is the closer"),
        ({"cnn": 0.2}, "fits lr 0.001 and lr 0.01; lr 0.01 is the closer"),
    ],
)
def test_which_rate_the_column_fits(off: dict[str, float], words: str) -> None:
    answer = make_result(off).rate
    assert words in answer
    for name, lr in (("cnn", "0.001"), ("cnn-lr0.01", "0.01")):
        assert f"lr {lr}: rms difference {off.get(name, 0.0):.2f} pp" in answer


def test_a_column_may_be_left_once_in_ten_epochs_but_not_at_the_last() -> None:
    def figures(missed: set[int]) -> bool:
        matrix = replace(tutorial_matrix("resident"), models=(lab.CNN,), seeds=(0,))
        accuracy = [f / 100 + (0.05 if n in missed else 0.0) for n, f in enumerate(FIGURES["cnn"])]
        trial = make_trial(make_cell("cnn"), 0, make_measurement(epochs=make_epochs([4.0] * 10, accuracy)))
        found = model_figures(matrix.models[0], [trial], FIGURES)
        assert found is not None
        assert found.outside == len(missed)
        return found.fits

    assert [figures(missed) for missed in (set(), {3}, {3, 4}, {9})] == [True, True, False, False]


def test_what_would_agree_is_said() -> None:
    def rate(name: str, lr: float, low: float, high: float) -> ModelFigures:
        epoch = EpochFigures(epoch=9, published=88.75, measured=(90.9, 91.3, 96.9), low=low, high=high)
        return ModelFigures(name=name, model="cnn", lr=lr, seeds=(0, 1, 2), epochs=(epoch,))

    answer = rate_answer([rate("cnn", 0.001, 92.6, 93.7), rate("cnn-lr0.01", 0.01, 76.5, 100.0)])
    assert "fits lr 0.01;" in answer
    assert "anything from 76.5 to 100.0 % would agree" in answer


def test_bounds_of_what_agrees_are_accuracies() -> None:
    low, high = agreeing([0.27, 0.86, 0.85])
    assert (low, high) == (0.0, 100.0)


def test_one_rate_alone_answers_nothing() -> None:
    result = make_result(leave_out=["cnn-lr0.01"])
    assert result.rate == ""
    assert "Erratum 4" not in " ".join(result.remarks)
    assert result.missing[0] == "tutorial cnn-lr0.01/cpu/b100/eager/s0: not yet run"


# ── errata ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_weights_on_both_image_sets() -> None:
    result = make_result({"cnn-lr0.01": 7.0})
    rows = {row.name: row for row in result.errata}
    assert rows["lenet5"].train == pytest.approx(98.22)
    assert rows["lenet5"].erratum_1 == pytest.approx(1.0)
    assert rows["lenet5"].standard == pytest.approx(98.72)  # the made-up run is 0.5 pp better, on one seed
    assert rows["lenet5"].erratum_2 == pytest.approx(-1.5)
    assert rows["mlp"].erratum_2 is None
    assert text_of(result, 5)[3] == ("lenet5", "98.22", "98.22", "97.22", "98.72", "+1.00", "-1.50")
    text = "\n".join(result.remarks)
    assert "Erratum 1 (scored on the training images; the same weights on the test images): mlp +1.00 pp" in text
    assert "cnn -1.50 pp, lenet5 -1.50 pp." in text
    assert "promises 99.81 % for mlp, its table ends lower): 91.96 % measured as published, 90.96 %" in text
    assert "lr 0.01 changes the test accuracy of cnn by +7.00 pp." in text


def test_trials_that_were_scored_on_one_set_have_no_errata() -> None:
    matrix = tutorial_matrix("resident")
    trials = [replace(t, outcome=structs.replace(t.outcome, final=None)) for t in make_trials(matrix)]  # type: ignore[type-var]
    result = reproduction(FIGURES, run_of(make_run(matrix), trials), run_of(make_run(standard_matrix(matrix)), []))
    assert result.errata == ()
    assert errata_remarks(()) == ("Erratum 5 (said to be Keras, is PyTorch): costs nothing.",)


# ── what is printed ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_other_images_get_no_verdict() -> None:
    matrix = tutorial_matrix("resident")
    run = make_run(matrix, dataset=DataSet(name="synthetic", root="/x", sha256="0" * 64))
    with pytest.raises(UsageError, match="was not made with MNIST"):
        reproduction(FIGURES, run_of(run, make_trials(matrix)), run_of(make_run(matrix, STANDARD), []))


def test_nothing_is_not_negative() -> None:
    result = make_result({"mlp": -0.001})
    assert text_of(result, 4)[0][4] == "+0.00"
    assert str(epochs_table(make_result({"mlp": -0.00001})).records()[0]["difference_pp"]) == "0.0"


def test_grids_and_records_say_the_same() -> None:
    result = make_result({"mlp": 0.3})
    lines = text_of(result, 0)
    assert lines[9][:5] == ("9", "91.96", "92.26", "92.06-92.46", "+0.30")
    assert text_of(result, 4)[0][1:5] == lines[9][1:5]
    records = [record for record in epochs_table(result).records() if record["model"] == "mlp"]
    assert records[9]["measured"] == 92.26
    assert (records[9]["measured_min"], records[9]["measured_max"]) == (92.06, 92.46)
    assert len(epochs_table(result).records()) == 40
    assert to_json(result)["verdicts"][0]["difference_pp"] == 0.3
    titles = [column.title for column in document(make_result(seeds=(0,))).tables[0].texts()[0]]
    assert "range" not in titles, "one seed has none"


def test_the_page_shows_everything_and_stays_text() -> None:
    tutorial = tutorial_matrix("resident")
    standard = standard_matrix(tutorial)
    hostile = make_failed(make_cell("mlp"), 0, "failed", "a | b <img src=x> [x](http://e.vil)\x1b[31m")
    trials = [hostile, *make_trials(tutorial, leave_out=["mlp"])]
    text = page(reproduction(FIGURES, run_of(make_run(tutorial), trials), run_of(make_run(standard, STANDARD), [])))
    assert "Not complete" in text
    assert "<img" not in text
    assert "\x1b" not in text
    assert "](http://e.vil)" not in text
    assert "standard cnn/cpu/b100/eager/s0: not yet run" in text
    whole = page(make_result())
    assert "Not complete" not in whole
    for model in ("mlp", "cnn", "cnn-lr0.01", "lenet5"):
        assert re.search(rf"^## {model}, lr 0\.0", whole, re.MULTILINE)
    assert "](reproduction.svg)" in whole
    tables = re.findall(r"((?:^\|.*\n)+)", whole, re.MULTILINE)
    assert len(tables) == 6
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_plot_draws_every_figure() -> None:
    result = make_result({"lenet5": 1.0})
    specification = lab.chart(result.models).to_dict()
    assert len(specification["concat"]) == 4
    values = [value for data in _data_of(specification) for value in data]
    assert len(values) == 4 * 2 * 10
    measured = [value for value in values if value["series"] == lab.MEASURED]
    assert max(value["accuracy"] for value in measured) == pytest.approx(99.22)
    assert [panel["title"] for panel in specification["concat"]] == [f"{m.name}, lr {m.lr:g}" for m in result.models]


def _data_of(specification: dict[str, Any]) -> list[list[dict[str, Any]]]:
    return [specification["datasets"][panel["data"]["name"]] for panel in specification["concat"]]


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a results folder with the two runs of a reproduction; the data set's files are not looked at."""
    monkeypatch.setattr(runner.data, "verify", lambda dataset: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(**changes: Any) -> Path:
        tutorial = tutorial_matrix("resident")
        standard = standard_matrix(tutorial)
        results = tmp_path / "results"
        for run_id, matrix, trials in (
            (STANDARD, standard, make_trials(standard)),
            (TUTORIAL, tutorial, make_trials(tutorial, **changes)),
        ):
            folder = RunFolder.create(results, make_run(matrix, run_id))
            with folder.lock():
                for trial in trials:
                    folder.append(trial)
        return results

    return make


def reproduce(results: Path, *flags: str) -> int:
    return main(["reproduce", "--resume", "latest", "-o", str(results), "--no-progress", *flags])


def test_a_finished_reproduction_is_shown_again(
    finished: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    results = finished(off={"cnn-lr0.01": 7.0})
    assert reproduce(results) == 0
    out = capsys.readouterr().out
    assert "The published cnn column fits lr 0.001; lr 0.001 is the closer." in out
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"lenet5 +98\.22 +98\.22 +98\.02-98\.42 +\+0\.00 +within the seeds' spread", out)
    folder = results / TUTORIAL
    assert (folder / "reproduction.md").read_text().startswith("# The tutorial, reproduced")
    assert (folder / "reproduction.svg").read_bytes().startswith(b"<svg")
    assert (folder / "reproduction.png").read_bytes().startswith(b"\x89PNG")
    assert not (results / STANDARD / "reproduction.md").exists()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw the plot takes seconds; for tests that look at what is printed."""
    monkeypatch.setattr(lab, "chart", lambda models: SimpleNamespace(save=lambda file, **how: None))


@pytest.mark.usefixtures("undrawn")
def test_every_format(finished: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    results = finished()
    assert reproduce(results, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == {"tutorial": TUTORIAL, "standard": STANDARD}
    assert [verdict["within"] for verdict in found["verdicts"]] == [True] * 4
    assert found["missing"] == []
    assert reproduce(results, "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 40
    assert rows[0]["published"] == "84.11"
    assert reproduce(results, "--format", "md") == 0
    assert capsys.readouterr().out == (results / TUTORIAL / "reproduction.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_interrupted_it_shows_what_is_there_and_how_to_go_on(
    finished: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = finished(leave_out=["lenet5"])
    asked: list[bool] = []

    def interrupt(group: Any, **_: Any) -> Any:
        asked.extend(spec.score_both for spec in group.specs)
        raise Interrupted("interrupted")

    monkeypatch.setattr(runner, "run_group", interrupt)
    assert reproduce(results) == 130
    printed = capsys.readouterr()
    assert f"go on with: mnist-bench reproduce --resume {TUTORIAL} -o {results}" in printed.err
    assert "missing: tutorial lenet5/cpu/b100/eager/s0: not yet run" in printed.out
    assert "91.96" in printed.out
    assert asked == [True]  # what a resumed run asks its workers for is what it began with


@pytest.mark.usefixtures("undrawn")
def test_a_failed_trial_is_said_and_is_exit_code_1(
    finished: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    results = finished(leave_out=["lenet5"])
    folder = RunFolder.open(results, TUTORIAL)
    with folder.lock():
        for seed in (0, 1, 2):
            folder.append(make_failed(make_cell("lenet5"), seed, "oom", "raise limits.memory_gib"))
    assert reproduce(results) == 1
    assert "lenet5/cpu/b100/eager/s2: oom: raise limits.memory_gib" in capsys.readouterr().out


def test_nothing_measured_yet(
    finished: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = finished(leave_out=["mlp", "cnn", "cnn-lr0.01", "lenet5"])

    def interrupt(group: Any, **_: Any) -> Any:
        raise Interrupted("interrupted")

    monkeypatch.setattr(runner, "run_group", interrupt)
    assert reproduce(results) == 130
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "nothing was measured yet" in printed.err
    assert not (results / TUTORIAL / "reproduction.md").exists()
    assert reproduce(results, "--json") == 130
    found = json.loads(capsys.readouterr().out)
    assert (found["runs"]["tutorial"], found["verdicts"], found["epochs"]) == (TUTORIAL, [], [])


@pytest.mark.parametrize("flags", [["--seeds", "1"], ["--epochs", "2"], ["--pipeline", "tutorial"]])
def test_a_resumed_reproduction_keeps_its_own(
    finished: Callable[..., Path], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce(finished(), *flags) == 2
    assert f"{flags[0]}: a resumed reproduction goes on with its own" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["abc", "0", "-3", "nan"])
def test_a_bad_timeout_loses_nothing_of_a_resumed_reproduction(
    finished: Callable[..., Path], seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = finished(leave_out=["lenet5"])
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert reproduce(results, f"--timeout={seconds}") == 2
    printed = capsys.readouterr()
    assert f"--timeout: '{seconds}' is not a number of seconds" in printed.err
    assert "Traceback" not in printed.err
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_another_run_is_no_reproduction(finished: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--resume", STANDARD, "-o", str(finished())]) == 2
    assert f"run {STANDARD} is no reproduction" in capsys.readouterr().err


def test_more_epochs_than_were_published_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--epochs", "11", "-o", str(tmp_path)]) == 2
    assert "--epochs: 11 epochs are more than the 10 that were published" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_mnist_nothing_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = ["--offline", "--data-dir", str(tmp_path / "none"), "-o", str(tmp_path / "results"), "--no-progress"]
    assert main(["reproduce", *flags]) == 2
    printed = capsys.readouterr()
    assert "mnist-bench data fetch" in printed.err
    assert printed.out == ""
    assert not (tmp_path / "results").exists()


# ── one epoch for real ───────────────────────────────────────────────────────────────────────────────────────────────


def test_both_image_sets_are_scored_by_real_workers(
    tmp_path: Path, bench_environ: Callable[[str], dict[str, str]]
) -> None:
    """The mlp alone, an epoch of each recipe: what a recipe scores anyway has the same accuracy in both places."""
    environ = bench_environ("one")
    # One thread: on a busy machine two of one step wait for each other's turn.
    shortened = replace(
        tutorial_matrix("resident"),
        models=(lab.MLP,),
        variants=(replace(lab.VARIANTS["resident"], threads=1),),
        epochs=1,
        seeds=(0,),
    )
    for matrix in (shortened, replace(shortened, recipe="standard")):
        options = runner.Options(
            run=RunOptions(score_both=True),
            matrix_path="test",
            output_dir=tmp_path / "results",
            data_root=Path(environ["MNIST_BENCH_DATA"]),
            offline=True,
        )
        drafted = runner.draft(replace(matrix, dataset="auto"), options.run)
        plan = runner.start(drafted, options, Observer(), environ)
        (trial,) = runner.execute(plan, Observer(), environ).trials
        assert isinstance(trial.outcome, Measurement), trial.reason
        assert trial.outcome.marks == ()
        assert trial.outcome.final is not None
        train, test = trial.outcome.final.train, trial.outcome.final.test
        own, other, images = (train, test, 60_000) if matrix.recipe == "tutorial" else (test, train, 10_000)
        assert trial.outcome.epochs.accuracy == (own,)
        assert trial.outcome.eval_samples == images  # that of the epochs: the other set is no part of its rate
        assert 0 < abs(train - test) < 0.1
        assert other > 0.5
