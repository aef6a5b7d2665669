"""``reproduce``: what is run, how it is judged, its refusals; what it prints and writes is in tests/golden."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from record_factory import keep, make_cell, make_epochs, make_failed, make_manifest, make_measurement, make_trial

from mnist_bench import cells
from mnist_bench.analysis.summary import Run
from mnist_bench.cli import main
from mnist_bench.errors import Interrupted, UsageError
from mnist_bench.labs import reproduce as lab
from mnist_bench.labs.reproduce import Epoch, Model, Reproduction, standard_matrix, tutorial_matrix
from mnist_bench.records import DataSet, ImageSets, Manifest, Matrix, RunOptions, Trial
from mnist_bench.report import vega
from mnist_bench.running import runner

PUBLISHED, MATRIX = lab.read(), tutorial_matrix("resident")
TUTORIAL, STANDARD = "20261123T101500Z-aaaaaa", "20261123T101500Z-bbbbbb"
SPREAD = (-0.2, 0.0, 0.2, *(-0.1, 0.1) * 3, 0.0)  # pp, by seed


def make_trials(matrix: Matrix, off: dict[str, float] | None = None, leave_out: Sequence[str] = ()) -> list[Trial]:
    """A trial per entry and seed: the published column, ``SPREAD`` by seed, ``off`` (pp) by entry; the test images 1 pp
    lower."""
    trials = []
    for entry, seed in product(matrix.models, matrix.seeds):
        shift = (off or {}).get(entry.name, 0.0) + SPREAD[seed]
        accuracy = [min(1.0, (figure + shift) / 100) for figure in PUBLISHED[entry.model][: matrix.epochs]]
        sets = ImageSets(train=accuracy[-1], test=accuracy[-1] - 0.01)
        outcome = make_measurement(epochs=make_epochs([4.0] * matrix.epochs, accuracy), final=sets)
        trials.append(make_trial(make_cell(entry.name), seed, outcome, recipe=matrix.recipe))
    return [trial for trial in trials if trial.cell.model not in leave_out]


def manifest_of(matrix: Matrix, **changes: Any) -> Manifest:
    tutorial = matrix.recipe == "tutorial"
    return make_manifest(
        [f"{cell.id}/s{seed}" for cell in cells.expand(matrix) for seed in matrix.seeds],
        matrix=matrix,
        matrix_sha256=cells.fingerprint(matrix),
        run_id=TUTORIAL if tutorial else STANDARD,
        order=tuple(group for group, _ in cells.groups(cells.expand(matrix), matrix.seeds)),
        options=RunOptions(score_both=True, companion=STANDARD if tutorial else None),
        **changes,
    )


def result_of(trials: Sequence[Trial], standard: Sequence[Trial], matrix: Matrix = MATRIX, **changes: Any) -> Any:
    own, beside = manifest_of(matrix, **changes), manifest_of(standard_matrix(matrix))
    runs = [Run(manifest=each, trials=found, sessions=()) for each, found in ((own, trials), (beside, standard))]
    return Reproduction(tutorial=runs[0], standard=runs[1])


def make_result(off: dict[str, float] | None = None, *, leave_out: Sequence[str] = (), **changes: Any) -> Reproduction:
    matrix = replace(MATRIX, **changes)
    return result_of(make_trials(matrix, off, leave_out), make_trials(standard_matrix(matrix)), matrix)


def test_what_is_run_beside_it_and_how_the_tutorial_loops():
    standard = standard_matrix(replace(MATRIX, seeds=(4, 5), epochs=3))
    assert (standard.recipe, standard.seeds, standard.epochs) == ("standard", (4,), 3)
    (variant,) = tutorial_matrix("tutorial").variants
    assert (variant.pipeline, variant.fused_optimizer) == ("tutorial", False)


# ── verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("measured", "published", "verdict"),
    [
        ([90.0, 91.0, 92.0], 92.0, "among the 3 seeds"),
        ([90.0, 91.0, 92.0], 89.9, "below all 3 seeds (by chance: 1 in 4)"),
        ([90.0, 91.0, 92.0], 92.1, "above all 3 seeds (by chance: 1 in 4)"),
        ([91.96], 92.96, "within 1 pp (one seed)"),  # which has no spread
        ([91.96], 90.95, "over 1 pp off (one seed)"),
    ],
)
def test_a_verdict_is_the_place_among_the_seeds(measured, published, verdict):
    epoch = Epoch(name="mlp", lr=0.01, number=0, published=published, measured=measured)
    assert epoch.verdict == verdict
    assert epoch.inside == verdict.startswith(("among", "within"))


def test_one_more_seed_is_the_farthest_once_in_n_plus_1_whatever_the_distribution():
    """Trainings that start on a plateau, or do not: two humps, and epochs that hang together."""
    rng, draws, seeds = np.random.default_rng(0), 1500, 10
    farthest = 0
    for stuck, noise in zip(rng.random((draws, seeds + 1)) < 0.4, rng.normal(size=(draws, 3, seeds + 1)), strict=True):
        columns = np.where(stuck, [[25.0], [60.0], [91.0]], [[86.0], [92.0], [95.0]]) + noise
        epochs = [
            Epoch(name="cnn", lr=0.01, number=number, published=row[0], measured=row[1:].tolist())
            for number, row in enumerate(columns)
        ]
        farthest += Model(model="cnn", epochs=epochs, test=None, standard=None).fits is False
    assert farthest / draws == pytest.approx(1 / (seeds + 1), abs=3 * math.sqrt(0.09 / draws))


def test_a_short_look_is_judged_at_its_last_epoch():
    model = make_result({"mlp": 0.25}, epochs=2).models[0]
    assert (len(model.epochs), model.final.number, model.final.published) == (2, 1, 87.53)
    assert (model.final.difference, model.rms) == (pytest.approx(0.25), pytest.approx(0.25))


@pytest.mark.parametrize(
    ("off", "words"),
    [
        ({"cnn-lr0.01": 7.0}, "fits lr 0.001; lr 0.001 is the closer"),
        ({"cnn": 7.0}, "fits lr 0.01; lr 0.01 is the closer"),
        ({"cnn": 3.0, "cnn-lr0.01": 7.0}, "fits neither rate; lr 0.001 is the closer"),
        ({"cnn": 0.1}, "fits lr 0.001 and lr 0.01; lr 0.01 is the closer"),
    ],
)
def test_which_rate_the_column_fits(off, words):
    result = make_result(off)
    assert words in result.rate
    for model in result.models:
        assert model.rms == pytest.approx(off.get(model.final.name, 0.0))


def test_few_seeds_say_nothing_of_a_column():
    rate = make_result({"cnn": 7.0}, seeds=(0, 1, 2)).rate
    assert rate == "Erratum 4: lr 0.01 is the closer; which rate the published cnn column fits takes 10 seeds to say."


def test_what_was_not_measured_is_not_said():
    one_set = [replace(t, outcome=structs.replace(t.outcome, final=None)) for t in make_trials(MATRIX)]
    assert lab.to_json(result_of(one_set, []))["errata"] == []
    alone = make_result(leave_out=["cnn-lr0.01"])
    assert (alone.rate, lab.document(alone).notes[0]) == ("", lab.MEANINGS[0])
    assert alone.missing[0] == "tutorial cnn-lr0.01/cpu/b100/eager/s0: not yet run"


def test_other_images_get_no_verdict():
    with pytest.raises(UsageError, match="was not made with MNIST"):
        result_of(make_trials(MATRIX), [], dataset=DataSet(name="synthetic", root="/x", sha256="0" * 64))


def test_the_plot_draws_every_figure():
    spec = lab.plot(make_result({"lenet5": 1.0}).models)
    assert [panel["title"] for panel in spec["concat"]][::3] == ["mlp, lr 0.01", "lenet5, lr 0.001"]
    values = [value for panel in spec["concat"] for value in panel["data"]["values"]]
    assert len(values) == 4 * 2 * 10
    assert max(one["accuracy"] for one in values if one["series"] == lab.MEASURED) == pytest.approx(0.9922)
    images = vega.images(spec)
    assert (images["svg"][:4], images["png"][:4]) == (b"<svg", b"\x89PNG")


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def asked(monkeypatch):
    """Whether both image sets are to be scored, of what would have been run: every group is interrupted instead."""
    found: list[bool] = []

    def interrupt(group: Any, **_: Any) -> Any:
        found.extend(spec.score_both for spec in group.specs)
        raise Interrupted("interrupted")

    monkeypatch.setattr(runner, "run_group", interrupt)
    return found


@pytest.fixture
def finished(tmp_path, monkeypatch, asked):
    """Makes a results folder with the two runs of a reproduction; files of the data set, and plots, are made up."""
    monkeypatch.setattr(runner.data, "verify", lambda dataset: None)
    monkeypatch.setattr(vega, "images", lambda *_: {"svg": b"an svg", "png": b"a png"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(*more: Trial, **changes: Any) -> Path:
        standard = standard_matrix(MATRIX)
        keep(tmp_path / "results", manifest_of(standard), make_trials(standard))
        keep(tmp_path / "results", manifest_of(MATRIX), [*make_trials(MATRIX, **changes), *more])
        return tmp_path / "results"

    return make


def reproduce(results: Path, *flags: str) -> int:
    return main(["reproduce", "--resume", "latest", "-o", str(results), "--no-progress", *flags])


def test_interrupted_it_shows_what_is_there_and_how_to_go_on(finished, asked, capsys):
    results = finished(leave_out=["lenet5"])
    assert reproduce(results) == 130
    printed = capsys.readouterr()
    assert re.search(rf"go on with: mnist-bench reproduce --resume {TUTORIAL} -o \S*results", printed.err)
    assert "missing: tutorial lenet5/cpu/b100/eager/s0: not yet run" in printed.out
    assert "91.96" in printed.out
    assert asked == [True]  # what a resumed run asks its workers for is what it began with


def test_a_failed_trial_is_said_and_is_exit_code_1(finished, capsys):
    failed = [make_failed(make_cell("lenet5"), seed, "oom", "raise limits.memory_gib") for seed in MATRIX.seeds]
    assert reproduce(finished(*failed, leave_out=["lenet5"])) == 1
    assert "lenet5/cpu/b100/eager/s2: oom: raise limits.memory_gib" in capsys.readouterr().out


def test_nothing_measured_yet(finished, capsys):
    results = finished(leave_out=[entry.name for entry in MATRIX.models])
    assert reproduce(results, "--json") == 130
    found = json.loads(capsys.readouterr().out)
    assert (found["runs"]["tutorial"], found["verdicts"], found["epochs"]) == (TUTORIAL, [], [])
    assert found["missing"][0] == "tutorial mlp/cpu/b100/eager/s0: not yet run"
    assert not (results / TUTORIAL / "reproduction.md").exists()
