"""What is measured in which order, and when it is enough: with made-up measurements, and the judge as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from check_kit import CRASH, MATRIX, FakeBench, Scene, by_model, cell
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bench.errors import BenchError, Interrupted
from mnist_bench.gate.conduct import Costs
from mnist_bench.gate.judge import judge
from mnist_bench.records import Cell

ONE = MATRIX.replace("mlp, lenet5", "mlp")
FIRST, LAST = 9, 36  # looks of one cell


@pytest.fixture(autouse=True)
def _nothing_is_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    return lambda before=ONE, after=ONE: Scene(tmp_path, monkeypatch, before, after)


def kinds(check: Any) -> dict[str, str]:
    return {verdict.cell.model: verdict.kind for verdict in judge(check)}


def undecided(which: Cell, number: int) -> float:
    """Slower by about 7 %, neither tolerated nor excluded, on a machine that spreads by 30 %."""
    return 0.065 + 0.3 * (-1) ** number


def differ(which: Cell, seed: int, side: str) -> float:
    return 0.95 + 0.0001 * (seed + 1) * (side == "B")


# ── what comes next ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_pairs_are_spread_over_the_cells_in_random_order_then_a_seed_each(make: Callable[..., Scene]) -> None:
    four = MATRIX.replace("mlp, lenet5", "mlp, cnn, {model: lenet5, name: x}, {model: mlp, name: w}")
    scene = make(four, four)
    check = scene.run()
    sweeps = [scene.bench.done[first : first + 4] for first in range(0, len(scene.bench.done), 4)]
    assert len(sweeps) == 11 + 1
    for number, sweep in enumerate(sweeps[:-1], start=1):
        assert sorted(sweep) == [f"{model} pair {number}" for model in ("cnn", "mlp", "w", "x")]
    assert len({tuple(line[0] for line in sweep) for sweep in sweeps}) > 3
    assert sorted(sweeps[-1]) == [f"{model} seed 0" for model in ("cnn", "mlp", "w", "x")]
    assert (set(kinds(check).values()), check.status, check.spent_s) == ({"pass"}, "complete", 11 * 40 + 40)


def test_a_large_difference_is_decided_in_the_fewest_pairs_and_gets_no_seed(make: Callable[..., Scene]) -> None:
    scene = make(MATRIX, MATRIX)
    scene.bench.slower = lambda which, number: 0.19 if which.model == "mlp" else undecided(which, number)
    check = scene.run()
    assert kinds(check)["mlp"] == "regression"
    assert scene.bench.count("mlp pair") == 10  # of 2 cells: 2^-10 < 0.01 / (4 looks x 2 cells)
    assert scene.bench.count("mlp seed") == 0
    assert scene.bench.count("lenet5 pair") == 39


def test_after_the_last_look_seeds_may_still_decide(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.bench.slower = undecided
    assert kinds(scene.run()) == {"mlp": "inconclusive"}
    assert scene.bench.done[-2:] == [f"mlp pair {LAST}", "mlp seed 0"]
    assert not any(note.startswith("budget:") for note in scene.run().notes)  # no budget would help


def test_a_fault_ends_its_cell_and_the_others_go_on(make: Callable[..., Scene]) -> None:
    scene = make(MATRIX, MATRIX)
    scene.bench.slower = lambda which, number: CRASH if (which.model, number) == ("mlp", 2) else 0.0
    check = scene.run()
    assert kinds(check) == {"mlp": "failed", "lenet5": "pass"}
    assert scene.bench.count("mlp pair") == 2
    assert any("B: it fell over" in text for text in scene.said)


def test_where_the_reference_fails_b_is_trained_alone(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.bench.accuracy = lambda which, seed, side: CRASH if side == "A" else 0.95
    check = scene.run()
    assert by_model(check)["mlp"].a.failed
    assert [each.seed for each in by_model(check)["mlp"].b.trainings] == [0]
    assert kinds(check) == {"mlp": "not_comparable"}
    assert scene.bench.done[FIRST:] == ["mlp seed 0"]


def test_seeds_that_differ_ask_for_more_those_of_the_matrix_first(make: Callable[..., Scene]) -> None:
    scene = make(ONE, ONE.replace("seeds: 2", "seeds: [7, 1]"))
    scene.bench.accuracy = differ
    scene.run()
    seeds = [line for line in scene.bench.done if "seed" in line]
    assert seeds[:4] == [f"mlp seed {seed}" for seed in (7, 1, 0, 2)]


def test_a_floor_is_held_over_all_seeds_of_the_matrix(make: Callable[..., Scene]) -> None:
    floor = ONE + "expect: [{min_accuracy: 0.95}]\n"
    scene = make(floor, floor)
    scene.bench.accuracy = lambda which, seed, side: (0.949, 0.952)[seed]
    assert kinds(scene.run()) == {"mlp": "pass"}
    assert scene.bench.done[FIRST:] == ["mlp seed 0", "mlp seed 1"]


def test_cells_that_cannot_be_compared_are_trained_on_b_alone(make: Callable[..., Scene]) -> None:
    before = MATRIX.replace("mlp, lenet5", "{model: mlp, name: gone}, {model: mlp, name: other, lr: 0.5}")
    after = MATRIX.replace(
        "mlp, lenet5", "{model: mlp, name: new}, {model: mlp, name: broken}, {model: mlp, name: other}"
    )
    scene = make(before, after)
    scene.bench.accuracy = lambda which, seed, side: CRASH if which.model == "broken" else 0.95
    check = scene.run()
    assert sorted(scene.bench.done) == ["broken solo 0", "new solo 0", "other solo 0"]
    assert kinds(check) == {"new": "new", "broken": "failed", "other": "not_comparable", "gone": "missing"}
    assert scene.run().cells == check.cells
    assert len(scene.bench.done) == 3  # a resumed check does not try them again
    assert make(None, ONE).run().cells[0].a is None


# ── the budget ───────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_the_budget_is_kept_but_for_what_the_guess_was_wrong_by(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    budget_s = data.draw(st.floats(0.1, 2000.0))
    with pytest.MonkeyPatch.context() as patch:
        scene = Scene(tmp_path_factory.mktemp("x"), patch, MATRIX, MATRIX)
        scene.bench = FakeBench(pair_s=data.draw(st.floats(5, 60)), train_s=data.draw(st.floats(0.5, 60)))
        scene.guess = data.draw(st.floats(0.2, 5))
        scene.bench.slower = undecided
        check = scene.run(budget_s)
    assert check.spent_s <= budget_s + scene.bench.pair_s + 1e-6


def test_speed_comes_first_where_seeds_are_dear(make: Callable[..., Scene]) -> None:
    """A net whose training takes most of the budget: its speed is measured all the same."""
    scene = make()
    scene.bench.train_s = 120.0
    scene.bench.slower = lambda which, number: 0.19
    assert kinds(scene.run(180.0)) == {"mlp": "regression"}
    assert scene.bench.done == [f"mlp pair {number}" for number in range(1, FIRST + 1)]


def test_where_speed_cannot_be_decided_it_ends_at_once_and_says_what_it_would_take(make: Callable[..., Scene]) -> None:
    scene = make()
    check = scene.run(20.0)
    assert scene.bench.done == []
    assert scene.said[0].startswith(
        "20 s of the budget of 20 s left: too little for a verdict on every cell: it takes 9 pairs a cell and a "
        "training of both sides: 1 cell is undecided; the next look at all of them takes about --budget 2m in all"
    )
    assert check.notes == ("budget: 1 cell is undecided; the next look at all of them takes about --budget 2m in all",)
    assert scene.run(120.0).notes == ()
    assert scene.bench.done[-1] == "mlp seed 0"


@pytest.mark.parametrize(("guess", "pairs"), [(1.0, 1), (3.0, 1), (10.0, 0)])
def test_before_a_guess_is_believed_one_pair_is_measured(make: Callable[..., Scene], guess: float, pairs: int) -> None:
    scene = make()
    scene.guess = guess
    scene.run(80.0)
    assert scene.bench.count("pair") == pairs
    scene = make()
    scene.guess = guess
    scene.run(120.0)
    assert scene.bench.count("pair") == (FIRST if guess < 10 else 0)


def test_no_pair_is_begun_that_could_not_reach_a_look(make: Callable[..., Scene]) -> None:
    """Time for one of two cells: it gets its look and its seed, the other nothing."""
    scene = make(MATRIX, MATRIX)
    check = scene.run(150.0)
    assert sorted(len(one.pairs) for one in check.cells) == [0, 10]
    assert sorted(kinds(check).values()) == ["inconclusive", "pass"]
    assert check.spent_s == 110.0


def test_a_training_that_outlives_the_budget_is_given_up_and_leaves_nothing(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.guess = 0.5
    scene.bench.train_s = 500.0
    check = scene.run(700.0)
    assert (check.spent_s, check.cells[0].seeds) == (700.0, ())
    assert "given up: the budget is spent" in scene.said[-1]
    assert "1 cell is undecided" in check.notes[0]


def test_the_forecast_comes_first_and_again_when_something_is_known(make: Callable[..., Scene]) -> None:
    scene = make()
    scene.run(300.0)
    first, second = (text for text in scene.said if "of the budget of" in text and "pairs a cell fit" in text)
    assert scene.said[0] == first
    assert "about 29 pairs a cell fit, 9 make a first look; the smallest slow-down that they find in 90 of" in first
    assert "if they spread by 3.0 %" in first
    assert "as they spread by 0.3 %" in second
    assert scene.events[1] == ("working", "pair 1/9  mlp/cpu/b100/eager")


# ── sittings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_measured_is_durable_before_the_next_begins_and_a_check_goes_on(make: Callable[..., Scene]) -> None:
    scene = make()

    def interrupted(which: Cell, number: int) -> Any:
        assert len(scene.folder.sessions()) == number - 1
        manifest = scene.folder.manifest()
        assert (manifest.check.spent_s, manifest.status) == (10.0 * (number - 1), "running")
        return Interrupted("interrupted") if number == 4 else 0.0

    scene.bench.slower = interrupted
    check = scene.run()
    assert (check.status, check.spent_s, len(check.cells[0].pairs)) == ("interrupted", 40.0, 3)
    scene.bench.slower = lambda which, number: 0.0
    check = scene.run()
    assert scene.bench.done[4:] == [f"mlp pair {number}" for number in range(4, FIRST + 1)] + ["mlp seed 0"]
    assert (check.status, check.spent_s, kinds(check)) == ("complete", 110.0, {"mlp": "pass"})
    done = len(scene.bench.done)
    assert scene.run().cells == check.cells
    assert len(scene.bench.done) == done  # nothing is left to do


def test_nothing_is_kept_of_a_tree_that_was_changed_meanwhile(make: Callable[..., Scene]) -> None:
    scene = make()

    def changed() -> None:
        if len(scene.bench.done) == 3:
            raise BenchError("changed")

    with pytest.raises(BenchError, match="changed"):
        scene.run(unchanged=changed)
    assert len(scene.folder.sessions()) == 2
    assert scene.folder.manifest().status == "interrupted"


def test_costs_are_learnt(make: Callable[..., Scene]) -> None:
    scene = make(MATRIX, MATRIX)
    costs = Costs(scene.b, [])
    a, b = cell("mlp"), cell("lenet5")
    assert [costs.seconds(task, a) for task in ("pair", "seed", "solo")] == [10.0, 10.0, 5.0]
    (session,) = scene.bench.pair(a, 1)
    for seconds in (5.0, 4.0, 50.0):
        costs.learn(replace(session, seconds=seconds))
    assert (costs.seconds("pair", a), costs.seconds("pair", b), costs.seconds("seed", b)) == (5.0, 5.0, 10.0)
