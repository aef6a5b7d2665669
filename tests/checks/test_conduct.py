"""What is measured in which order, and when it is enough: with made-up measurements."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
from check_kit import (
    CRASH,
    FakeBench,
    cell,
    evidence,
    made_up_rules,
    of_kind,
    process_pair,
    seed_pair,
    training,
)
from hypothesis import given
from hypothesis import strategies as st

from mnist_bench.checks import budget as budgets
from mnist_bench.checks.budget import Budget
from mnist_bench.checks.conduct import Conductor
from mnist_bench.checks.costs import Costs, guesses
from mnist_bench.checks.events import CheckEvent, Forecast, OutOfTime, TaskFinished, TaskStarted
from mnist_bench.checks.ledger import Ledger, Line
from mnist_bench.checks.rules import Rules
from mnist_bench.errors import Interrupted, UsageError
from mnist_bench.gate.records import CellEvidence, SeedPair, SideFault, Solo
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Matrix, ModelEntry


class Scene:
    """One sitting; ``kept`` are the durable lines, ``events`` what was told."""

    def __init__(
        self,
        cells: tuple[CellEvidence, ...],
        *,
        bench: FakeBench | None = None,
        rules: Rules | None = None,
        budget_s: float = 10_000.0,
        seeds: tuple[int, ...] = (0, 1),
        guess_s: float = 10.0,
        earlier: tuple[Line, ...] = (),
    ) -> None:
        self.bench = bench or FakeBench()
        self.kept: list[Line] = []
        self.events: list[CheckEvent] = []
        self.ledger = Ledger(cells, self.kept.append)
        for line in earlier:
            self.ledger.take(line)
        guessed: Any = {(task, one.cell): guess_s for task in ("pair", "seed", "solo") for one in cells}
        self.conductor = Conductor(
            ledger=self.ledger,
            bench=self.bench,
            rules=rules or made_up_rules(),
            costs=Costs(guessed, self.ledger.durations),
            budget=Budget(total_s=budget_s, before_s=0.0, clock=self.bench.clock, started_s=self.bench.now),
            seeds=seeds,
            rng=random.Random(0),
            emit=self.events.append,
        )

    def run(self) -> Scene:
        self.conductor.run()
        return self

    @property
    def done(self) -> list[str]:
        return self.bench.done

    def pairs(self, model: str) -> int:
        return len(self.ledger.of(cell(model)).pairs)


def test_a_first_seed_of_every_cell_then_pairs_then_enough() -> None:
    scene = Scene(evidence("mlp", "lenet5")).run()
    assert sorted(scene.done[:2]) == ["lenet5 seed 0", "mlp seed 0"]
    assert Counter(line.split()[0] + " pair" for line in scene.done[2:]) == {"mlp pair": 3, "lenet5 pair": 3}
    assert [pair.number for pair in scene.ledger.of(cell("mlp")).pairs] == [1, 2, 3]


def test_pairs_are_spread_over_the_cells_in_random_order() -> None:
    models = ("a", "b", "c", "d")
    scene = Scene(evidence(*models), rules=made_up_rules((12, 21, 36))).run()
    sweeps = [tuple(scene.done[first : first + 4]) for first in range(4, len(scene.done), 4)]
    assert len(sweeps) == 12
    for number, sweep in enumerate(sweeps, start=1):
        assert sorted(sweep) == [f"{model} pair {number}" for model in models]
    assert len({tuple(line[0] for line in sweep) for sweep in sweeps}) > 6


def test_an_undecided_cell_goes_on_to_its_next_looks_and_a_decided_one_does_not() -> None:
    def pairs(which: Cell, number: int) -> Any:
        return process_pair(number, 1.0 if which.model == "slow" else 0.0)

    rules = made_up_rules(decisions={8: "pass"})
    scene = Scene(evidence("slow", "mlp"), bench=FakeBench(pairs=pairs), rules=rules).run()
    assert (scene.pairs("slow"), scene.pairs("mlp")) == (3, 8)


def test_after_the_last_look_it_ends_undecided() -> None:
    scene = Scene(evidence("mlp"), rules=made_up_rules(decisions={})).run()
    assert scene.pairs("mlp") == 8


def test_a_fault_ends_its_cell_and_the_others_go_on() -> None:
    def pairs(which: Cell, number: int) -> Any:
        return (CRASH,) if which.model == "mlp" and number == 2 else None

    scene = Scene(evidence("mlp", "lenet5"), bench=FakeBench(pairs=pairs)).run()
    assert scene.ledger.of(cell("mlp")).faults == (CRASH,)
    assert scene.bench.count("mlp pair") == 2
    assert scene.pairs("lenet5") == 3


def test_a_failure_in_the_first_seed_decides_at_once() -> None:
    scene = Scene(evidence("mlp"), bench=FakeBench(seeds=lambda which, seed: (CRASH,))).run()
    assert scene.done == ["mlp seed 0"]
    (finished,) = of_kind(scene.events, TaskFinished)
    assert isinstance(finished, TaskFinished)
    assert (finished.found, finished.faults) == (None, (CRASH,))


def test_what_b_did_where_the_reference_failed_is_kept() -> None:
    solo, fault = Solo(seed=0, b=training(0.5)), SideFault(side="A", outcome=CRASH.outcome)
    scene = Scene(evidence("mlp"), bench=FakeBench(seeds=lambda which, seed: (fault, solo))).run()
    assert scene.done == ["mlp seed 0"]
    assert (scene.ledger.of(cell("mlp")).faults, scene.ledger.of(cell("mlp")).solo) == ((fault,), solo)


def test_an_accuracy_under_the_floor_decides_at_once() -> None:
    def seeds(which: Cell, seed: int) -> SeedPair:
        return SeedPair(seed=seed, a=training(), b=training(accuracy=0.1, predictions="e"))

    scene = Scene(evidence("mlp", min_accuracy=0.9), bench=FakeBench(seeds=seeds)).run()
    assert scene.done == ["mlp seed 0"]


def test_seeds_that_differ_ask_for_more_those_of_the_matrix_first() -> None:
    bench = FakeBench(seeds=lambda which, seed: seed_pair(seed, same=False))
    scene = Scene(evidence("mlp"), bench=bench, seeds=(7, 1)).run()
    assert [line for line in scene.done if "seed" in line] == [f"mlp seed {seed}" for seed in (7, 1, 0, 2)]
    assert scene.done.index("mlp seed 1") > scene.done.index("mlp pair 3")


def less_accurate(which: Cell, seed: int) -> SeedPair | None:
    """The usual, but for lenet5, which lost two in a hundred."""
    if which.model != "lenet5":
        return None
    return SeedPair(seed=seed, a=training(accuracy=0.97), b=training(accuracy=0.95, predictions="e" * 64))


def test_a_cell_that_seems_less_accurate_gets_its_seeds_first_and_then_no_pair() -> None:
    scene = Scene(evidence("mlp", "lenet5"), bench=FakeBench(seeds=less_accurate)).run()
    assert scene.done[2:5] == ["lenet5 seed 1", "lenet5 seed 2", "lenet5 seed 3"]
    assert (scene.pairs("lenet5"), scene.pairs("mlp")) == (0, 3)


def test_where_those_seeds_do_not_fit_pairs_come_first() -> None:
    scene = Scene(evidence("lenet5"), bench=FakeBench(seeds=less_accurate), budget_s=39.0).run()
    assert scene.done == ["lenet5 seed 0", "lenet5 seed 1", "lenet5 seed 2"]  # no look of either is within reach
    scene = Scene(
        evidence("lenet5"), bench=FakeBench(seeds=less_accurate), budget_s=39.0, rules=made_up_rules((2, 3))
    ).run()
    assert scene.done == ["lenet5 seed 0", "lenet5 pair 1", "lenet5 pair 2"]


def test_a_slow_cell_gets_no_more_seeds() -> None:
    bench = FakeBench(
        seeds=lambda which, seed: seed_pair(seed, same=False), pairs=lambda which, number: process_pair(number, 1.0)
    )
    assert Scene(evidence("mlp"), bench=bench).run().bench.count("seed") == 1


def test_cells_that_cannot_be_compared_are_trained_on_b_alone() -> None:
    cells = (
        *evidence("gone", sides="only A"),
        *evidence("differs", differences=("lr: 1 in A, 2 in B",)),
        *evidence("new", "broken", sides="only B"),
    )
    bench = FakeBench(solos=lambda which, seed: (CRASH,) if which.model == "broken" else None)
    scene = Scene(cells, bench=bench).run()
    assert sorted(scene.done) == ["broken solo 0", "differs solo 0", "new solo 0"]
    assert scene.ledger.of(cell("broken")).faults == (CRASH,)
    assert scene.ledger.of(cell("new")).solo == scene.ledger.of(cell("differs")).solo == Solo(seed=0, b=training())
    assert {line.cell.model for line in scene.kept} == {"broken", "differs", "new"}
    again = Scene(cells, earlier=tuple(scene.kept)).run()
    assert again.done == []  # a resumed check does not try them again
    assert not of_kind(scene.events, Forecast)  # there is nothing to foresee


# ── the budget ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    budget_s=st.floats(0.0, 2000.0), seconds=st.floats(0.5, 60.0), guess_s=st.floats(1.0, 60.0), cells=st.integers(1, 5)
)
def test_the_budget_is_kept_but_for_what_the_guess_was_wrong_by(
    budget_s: float, seconds: float, guess_s: float, cells: int
) -> None:
    scene = Scene(
        evidence(*(f"m{number}" for number in range(cells))),
        bench=FakeBench(seconds=seconds),
        rules=made_up_rules((3, 5, 8), decisions={}),
        budget_s=budget_s,
        guess_s=guess_s,
    ).run()
    assert scene.bench.now <= budget_s + seconds + 1e-6


def test_a_training_that_outlives_the_budget_is_given_up_and_leaves_nothing() -> None:
    bench = FakeBench(trains_s=500.0)
    scene = Scene(evidence("mlp", "lenet5"), bench=bench, budget_s=120.0).run()
    assert len(scene.done) == 1
    assert (scene.bench.now, scene.kept) == (120.0, [])
    (finished,) = of_kind(scene.events, TaskFinished)
    assert isinstance(finished, TaskFinished)
    assert (finished.found, finished.faults, finished.left_s) == (OutOfTime(), (), 0.0)


def test_no_pair_is_begun_that_could_not_reach_a_look() -> None:
    """Three cells, and after their seeds time for 7 pairs: two of them get their look, the third gets nothing."""
    scene = Scene(evidence("a", "b", "c"), budget_s=100.0).run()
    assert sorted(scene.pairs(model) for model in "abc") == [0, 3, 3]
    assert scene.bench.now == 90.0


def test_a_budget_for_no_look_says_so_at_the_start() -> None:
    scene = Scene(evidence("mlp"), budget_s=25.0, rules=made_up_rules(detectable=lambda pairs, sd: math.inf)).run()
    assert scene.done == ["mlp seed 0"]
    first = scene.events[0]
    assert isinstance(first, Forecast)
    assert (first.pairs, first.first_look, first.needs_s) == (1, 3, 40.0)
    assert first.detectable == math.inf


def test_a_budget_for_nothing() -> None:
    scene = Scene(evidence("mlp"), budget_s=5.0).run()
    assert scene.done == []


def test_the_forecast_comes_first_and_again_when_something_is_known() -> None:
    asked: list[tuple[int, float]] = []

    def detectable(pairs: int, sd: float) -> float:
        asked.append((pairs, sd))
        return 0.07

    bench = FakeBench(seconds=20.0, pairs=lambda which, number: process_pair(number, 0.02 * (-1) ** number))
    rules = made_up_rules((6, 9, 12), decisions={}, detectable=detectable)
    scene = Scene(evidence("mlp"), bench=bench, rules=rules, budget_s=200.0).run()
    first, second = of_kind(scene.events, Forecast)
    assert isinstance(first, Forecast)
    assert isinstance(second, Forecast)
    assert scene.events[0] is first
    assert (first.pairs, first.measured, first.sd) == (12, False, 0.03)
    assert asked[0] == (19, 0.03)
    # 4 pairs and a seed took 100 s of 200: time for 5 more.
    assert (second.pairs, second.measured) == (9, True)
    assert second.sd == pytest.approx(0.0231, abs=1e-4)


def test_more_seeds_do_not_wait_for_pairs_that_cannot_be_had() -> None:
    bench = FakeBench(seeds=lambda which, seed: seed_pair(seed, same=False))
    scene = Scene(evidence("mlp"), bench=bench, budget_s=90.0, rules=made_up_rules((20, 30, 40))).run()
    assert scene.done == [f"mlp seed {seed}" for seed in (0, 1, 2, 3)]


# ── sittings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_measured_is_durable_before_the_next_begins() -> None:
    scene = Scene(evidence("mlp"))

    def pairs(which: Cell, number: int) -> Any:
        assert len(scene.kept) == number  # the seed, and the pairs before
        return None

    scene.bench.pairs = pairs
    scene.run()
    assert [line.spent_s for line in scene.kept] == [10.0, 20.0, 30.0, 40.0]
    assert {line.seconds for line in scene.kept} == {10.0}


def test_an_interrupted_sitting_goes_on_where_it_was() -> None:
    one = Scene(evidence("mlp"), bench=FakeBench(pairs=lambda which, number: Interrupted() if number == 3 else None))
    with pytest.raises(Interrupted):
        one.run()
    two = Scene(evidence("mlp"), earlier=tuple(one.kept)).run()
    assert two.done == ["mlp pair 3"]
    started = of_kind(two.events, TaskStarted)
    assert [(event.number, event.target) for event in started if isinstance(event, TaskStarted)] == [(3, 3)]


def test_a_complete_check_has_nothing_left_to_do() -> None:
    one = Scene(evidence("mlp")).run()
    assert Scene(evidence("mlp"), earlier=tuple(one.kept)).run().done == []


# ── time and what it costs ───────────────────────────────────────────────────────────────────────────────────────────


def test_costs_are_learnt() -> None:
    a, b = cell("a"), cell("b")
    durations: dict[Any, list[float]] = {}
    costs = Costs({("pair", a): 10.0, ("pair", b): 30.0, ("seed", b): 5.0}, durations)
    assert (costs.seconds("pair", a), costs.seconds("pair", b)) == (10.0, 30.0)
    durations["pair", a] = [5.0, 4.0, 50.0]
    assert (costs.seconds("pair", a), costs.seconds("pair", b)) == (5.0, 15.0)
    assert costs.seconds("seed", b) == 5.0


def test_guesses_grow_with_the_work() -> None:
    matrix = Matrix(
        models=(ModelEntry(name="mlp", model="mlp"), ModelEntry(name="cnn", model="cnn")),
        devices=("cpu",),
        batch_sizes=(100,),
        variants=(BUILTIN_VARIANTS["eager"], BUILTIN_VARIANTS["compile"]),
    )
    compiled = Cell(model="mlp", device="cpu", batch_size=100, variant="compile")
    found = guesses(matrix, [cell("mlp"), cell("cnn"), compiled], 2)
    assert found["pair", cell("mlp")] == found["pair", cell("cnn")] < found["pair", compiled]
    assert 2 * found["solo", cell("cnn")] == found["seed", cell("cnn")] > found["seed", cell("mlp")]


@pytest.mark.parametrize("text", ["", "20", "m", "-3m", "0s", "1e3s", "8000m0", "200h", "nan s", "1h30m", "٣m"])
def test_a_budget_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="say 90s, 20m or 1h"):
        budgets.parse(text)


def test_what_is_spent_is_over_all_sittings() -> None:
    clock = iter([100.0, 130.0, 130.0])
    budget = Budget(total_s=60.0, before_s=20.0, clock=lambda: next(clock), started_s=100.0)
    assert (budget.spent_s(), budget.spent_s(), budget.left_s()) == (20.0, 50.0, 10.0)
