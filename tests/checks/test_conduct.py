"""What is measured in which order, and when it is enough: with made-up measurements, and the judge as it is."""

import math
import os
import re
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from check_kit import CRASH, MATRIX, FakeBench, Scene, by_model, kinds, trial
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import make_cell, make_measurement, make_session

from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import UsageError
from mnist_bench.gate.evidence import Margins
from mnist_bench.records import Cell, Failure, Session

ONE = MATRIX.replace("mlp, lenet5", "mlp")
GATE = "gate: {memory: 0.1}\n"
FIRST, LAST = 8, 37  # looks of one cell
FIRST_OF_2, LAST_OF_2 = 9, 41  # 2^-9 < 0.01 / 2 / 2 cells


@pytest.fixture(autouse=True)
def _nothing_is_synced(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def make(tmp_path, monkeypatch):
    return lambda before=ONE, after=ONE: Scene(tmp_path, monkeypatch, before, after)


def undecided(which: Cell, number: int) -> float:
    """Slower by about 7 %, neither tolerated nor excluded, on a machine that spreads by 30 %."""
    return 0.065 + 0.3 * (-1) ** number


def slow(which: Cell, number: int) -> float:
    return 0.19 if which.model == "mlp" else undecided(which, number)


def crash(which: Cell, number: int) -> float | Failure:
    return CRASH if (which.model, number) == ("mlp", 2) else 0.0


def a_fails(which: Cell, seed: int, side: str) -> float | Failure:
    return CRASH if side == "A" else 0.95


class Case(NamedTuple):
    """What is found (as of ``FakeBench``), within what -> the verdicts of the cells, and how often what was done."""

    kinds: str
    done: dict[str, int]
    bench: dict[str, Any]
    matrix: str = ONE
    budget_s: float = 10_000.0
    guess: float = 1.0


CASES = {
    "a large difference is decided in the fewest pairs, and gets no seed": Case(
        "regression, inconclusive",
        {"mlp pair": FIRST_OF_2, "mlp seed": 0, "lenet5 pair": LAST_OF_2},
        {"slower": slow},
        MATRIX,
    ),
    "after the last look seeds may still decide": Case(
        "inconclusive", {"pair": LAST, "seed": 1}, {"slower": undecided}
    ),
    "a fault ends its cell, and the others go on": Case(
        "failed, pass", {"mlp": 2, "lenet5 pair": FIRST_OF_2}, {"slower": crash}, MATRIX
    ),
    "where the reference fails B is trained once": Case(
        "not_comparable", {"seed 0": 1, "seed": 1, "solo": 0}, {"accuracy": a_fails}
    ),
    "seeds that differ ask for more, and those of the matrix count": Case(
        "pass",
        {"seed 7": 1, "seed 0": 1, "seed 2": 1},
        {"accuracy": lambda which, seed, side: 0.95 + 0.0001 * (seed + 1) * (side == "B")},
        ONE.replace("seeds: 2", "seeds: [7, 1]"),
    ),
    "memory is judged where the matrix asks for it": Case(
        "regression, pass",
        {"mlp pair": FIRST_OF_2, "mlp seed": 0, "lenet5 pair": FIRST_OF_2},
        {"grown": lambda which, number: 1.3},
        MATRIX + "gate: [{model: mlp, memory: 0.1}, {}]\n",
    ),
    "memory that is not decided takes more pairs": Case(
        "pass", {"pair": 12, "seed": 1}, {"grown": lambda which, number: 1.3 if number == 5 else 1.0}, ONE + GATE
    ),
    "memory that no look decides": Case(
        "inconclusive", {"pair": LAST}, {"grown": lambda which, number: 1.12 + 0.1 * (-1) ** number}, ONE + GATE
    ),
    "a floor is held over all seeds of the matrix": Case(
        "pass",
        {"pair": FIRST, "seed 0": 1, "seed 1": 1, "seed": 2},
        {"accuracy": lambda which, seed, side: (0.949, 0.952)[seed]},
        ONE + "expect: [{min_accuracy: 0.95}]\n",
    ),
    "speed comes first where seeds are dear": Case(
        "regression", {"pair": FIRST, "seed": 0}, {"slower": slow, "train_s": 120.0}, ONE, 180.0
    ),
    "no pair is begun that could not reach a look": Case(
        "pass, inconclusive", {"mlp pair": FIRST_OF_2, "mlp seed": 1, "lenet5": 0}, {}, MATRIX, 150.0
    ),
    # Before a guess is believed one pair is measured.
    "too little": Case("inconclusive", {"pair": 1}, {}, ONE, 70.0),
    "too little, and guessed dear": Case("inconclusive", {"pair": 1}, {}, ONE, 70.0, 3.0),
    "too little, and guessed hopeless": Case("inconclusive", {"pair": 0}, {}, ONE, 70.0, 10.0),
    "enough, and guessed dear": Case("pass", {"pair": FIRST}, {}, ONE, 120.0, 3.0),
    "enough, and guessed hopeless": Case("inconclusive", {"pair": 0}, {}, ONE, 120.0, 10.0),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_measured_and_when_it_is_enough(name, make):
    case = CASES[name]
    scene = make(case.matrix, case.matrix)
    scene.guess, scene.bench = case.guess, FakeBench(**case.bench)
    assert ", ".join(kinds(scene.run(case.budget_s)).values()) == case.kinds
    assert {what: scene.bench.count(what) for what in case.done} == case.done


def test_pairs_are_spread_over_the_cells_in_random_order_then_a_seed_each(make):
    four = MATRIX.replace("mlp, lenet5", "mlp, cnn, {model: lenet5, name: x}, {model: mlp, name: w}")
    scene = make(four, four)
    check = scene.run()
    sweeps = [scene.bench.done[first : first + 4] for first in range(0, len(scene.bench.done), 4)]
    expected = [*(f"pair {number}" for number in range(1, 11)), "seed 0"]
    for sweep, what in zip(sweeps, expected, strict=True):
        assert sorted(sweep) == [f"{model} {what}" for model in ("cnn", "mlp", "w", "x")]
    assert len({tuple(line[0] for line in sweep) for sweep in sweeps}) > 3
    assert (set(kinds(check).values()), check.status, check.spent_s) == ({"pass"}, "complete", 10 * 40 + 40)


@pytest.mark.parametrize(
    ("matrix", "together", "batches"), [(ONE, 3, [3, 3, 2]), (MATRIX, 5, [5, 5, 5, 3]), (MATRIX, 1, [1] * 18)]
)
def test_as_many_pairs_as_may_live_together_are_asked_for_at_once(matrix, together, batches, make):
    scene = make(matrix, matrix)
    scene.bench.together = together
    check = scene.run()
    assert scene.bench.batches == batches
    for one in check.cells:
        own = [line for line in scene.bench.done if line.startswith(f"{one.cell.model} pair")]
        assert own == [f"{one.cell.model} pair {number}" for number in range(1, 1 + len(one.pairs))]
    assert {*kinds(check).values()} == {"pass"}


def test_cells_that_cannot_be_compared_are_trained_on_b_alone(make):
    before = MATRIX.replace("mlp, lenet5", "{model: mlp, name: gone}, {model: mlp, name: other, lr: 0.5}")
    names = ", ".join(f"{{model: mlp, name: {name}}}" for name in ("new", "broken", "other"))
    scene = make(before, MATRIX.replace("mlp, lenet5", names))
    scene.bench.accuracy = lambda which, seed, side: CRASH if which.model == "broken" else 0.95
    check = scene.run()
    assert sorted(scene.bench.done) == ["broken solo 0", "new solo 0", "other solo 0"]
    assert kinds(check) == {"new": "new", "broken": "failed", "other": "not_comparable", "gone": "missing"}
    assert any("B: it fell over" in text for text in scene.said)
    assert scene.run().cells == check.cells
    assert len(scene.bench.done) == 3  # a resumed check does not try them again
    assert by_model(make(None, ONE).run())["mlp"].a is None


# ── what the lines of a check say ────────────────────────────────────────────────────────────────────────────────────

DIFFERENT = {
    "epochs: 1 in A, 7 in B": ("epochs: 1", "epochs: 7"),
    "recipe: standard in A, tutorial in B": ("epochs: 1", "epochs: 1\nrecipe: tutorial"),
    "threads: all cores in A, 1 in B": ("name: own", "name: own, threads: 1"),
    "channels_last: False in A, True in B": ("name: own", "name: own, channels_last: true"),
    "workers: 2: loader processes work out of turn": ("name: own", "name: own, pipeline: torchvision, workers: 2"),
}


@pytest.mark.parametrize("words", DIFFERENT)
def test_what_a_name_stands_for_on_each_side_must_be_the_same(words, make):
    before = ONE.replace("eager", "{name: own}")
    (one,) = make(before, before.replace(*DIFFERENT[words])).run(0.1).cells
    assert any(found.startswith(words) for found in one.differences)
    assert (one.comparable, one.margins_before) == (False, None)


def test_pairs_figures_margins_and_floors_of_a_cell(make):
    rules = "gate: [{model: mlp, margin: 0.05, detect: 0.2}, {margin: 0.5, detect: 0.9}]\n"
    scene = make(ONE, ONE + rules + "expect: [{min_accuracy: 0.9}, {model: mlp, min_accuracy: 0.95}]\n")
    ids, rounds = [f"{make_cell().id}/p1@{name}" for name in "AB"], [[10.0, 11.0], [10.0, 12.0], [10.0, 13.0]]
    scene.folder.append(make_session(ids, rounds, group=make_cell().id, seconds=10.0, noisy=("load",)))
    scene.folder.append(trial(make_cell(), 1, "B", make_measurement(compile_s=3.0)))
    (one,) = scene.run(0.1).cells
    assert [(pair.log_ratio, pair.noisy) for pair in one.pairs] == [(pytest.approx(math.log(1.2)), ("load",))]
    assert one.b.figures["compile_s"] == 3.0
    assert one.samples_per_s == pytest.approx(100 * 30 / 0.36)
    assert (one.margins, one.margins_before) == (Margins(margin=0.05, detect=0.2), Margins())
    assert (one.min_accuracy, one.floor_seeds, one.seeds_awaited) == (0.95, (0, 1), (0,))


def pair_of(group: str, *blocks: float, **changes: Any) -> Session:
    return make_session([f"{group}/p1@{name}" for name in "AB"], [[*blocks]], **{"group": group, **changes})


GONE = make_cell("lenet5")
FOREIGN = {
    "a broken line: a pair has rounds": pair_of(make_cell().id, 10.0, 0.0),
    "sessions.jsonl: group: 'cnn' is no cell": pair_of("cnn", 10.0, 11.0),
    "sessions.jsonl: group: 'lenet5/cpu/b100/eager' is no cell that both sides have": pair_of(GONE.id, 10.0, 11.0),
    "trials.jsonl: cell: 'cnn/cpu/b100/eager' is none": trial(make_cell("cnn"), 0, "B"),
    "trials.jsonl: cell: 'lenet5/cpu/b100/eager' is none of this check's on side A": trial(GONE, 0, "A"),
    "is none of this check's on side None": replace(trial(make_cell(), 0, "B"), side=None),
}


@pytest.mark.parametrize("words", FOREIGN)
def test_a_stranger_s_line_is_refused_by_its_file_and_field(words, make):
    """A reference has lenet5, and the change has not."""
    scene = make(MATRIX, ONE)
    scene.folder.append(FOREIGN[words])
    with pytest.raises(UsageError, match=re.escape(words)):
        scene.run()
    assert scene.bench.done == []


def test_a_pair_costs_the_same_however_many_there_are(make, monkeypatch):
    """Lines are read when a sitting begins, and when it ends."""
    reads, scene = [], make()
    monkeypatch.setattr(RunFolder, "sessions", lambda self, read=RunFolder.sessions: reads.append(1) or read(self))
    assert len(scene.run().cells[0].pairs) == FIRST
    assert len(reads) == 2


def test_sessions_that_took_no_time_are_gone_on_from(make):
    scene = make()
    scene.folder.append(pair_of(make_cell().id, 10.0, 11.0, seconds=0.0))
    assert scene.run(80.0).status == "complete"


# ── the budget ───────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_budget_is_kept_but_for_what_the_guess_was_wrong_by(data, tmp_path_factory):
    budget_s = data.draw(st.floats(0.1, 2000.0))
    with pytest.MonkeyPatch.context() as patch:
        scene = Scene(tmp_path_factory.mktemp("x"), patch, MATRIX, MATRIX)
        scene.bench = FakeBench(pair_s=data.draw(st.floats(5, 60)), train_s=data.draw(st.floats(0.5, 60)))
        scene.guess = data.draw(st.floats(0.2, 5))
        scene.bench.slower = undecided
        check = scene.run(budget_s)
    assert check.spent_s <= budget_s + scene.bench.pair_s + 1e-6


def test_where_speed_cannot_be_decided_it_ends_at_once_and_says_what_it_would_take(make):
    scene = make()
    check = scene.run(15.0)
    assert scene.bench.done == []
    needs = "1 cell is undecided; the next look at all of them takes about --budget 2m in all"
    assert scene.said[0].startswith(f"15 s of the budget of 15 s left: too little for a verdict on every cell: {needs}")
    assert check.notes == (f"budget: {needs}",)
    scene.bench.slower = undecided
    assert scene.run().notes == ()  # no budget would help


def test_a_training_that_outlives_the_budget_is_given_up_and_leaves_nothing(make):
    scene = make()
    scene.guess = 0.5
    scene.bench.train_s = 500.0
    check = scene.run(700.0)
    assert (check.spent_s, check.cells[0].seeds) == (700.0, ())
    assert "given up: the budget is spent" in scene.said[-1]
    assert "1 cell is undecided" in check.notes[0]


def test_the_forecast_comes_first_and_a_resumed_check_knows_more(make):
    scene = make()
    scene.bench.slower = undecided
    scene.run(300.0)
    words = "about 29 pairs a cell fit, 8 make a first look (80 s); the smallest slow-down that they find in 90 of"
    assert words in scene.said[0]
    assert "if they spread by 3.0 %" in scene.said[0]
    assert scene.events[1] == ("working", "pair 1/8  mlp/cpu/b100/eager")
    scene.run(600.0)
    assert "about 37 pairs a cell fit" in scene.said[0]
    assert "as they spread by 31.8 %" in scene.said[0]
