"""The order in which live trials hand the token on, and when a session stops: members made up, no clock."""

import random
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bench.running.protocol import Block, BlockDone
from mnist_bench.running.session import LOOK_EVERY, MIN_ROUNDS, Left, time_session

Seconds = Callable[[int], float | None]  # of the n-th block; None: the member fails in it
FOR_EVER = {"precision": 1e-9}
UNPAID = {"budget_s": 1e9}


@dataclass
class Fake:
    """A member whose n-th block of 10 steps takes ``seconds(n)``; it writes its name into ``log``."""

    name: int
    seconds: Seconds
    log: list[int]
    seeds: list[int] = field(default_factory=list)
    used_s: float = 0.0

    def ask(self, request: Block, kind: type[BlockDone]) -> BlockDone:
        self.log.append(self.name)
        self.seeds.append(request.seed)
        seconds = self.seconds(len(self.seeds) - 1)
        if seconds is None:
            raise Left
        self.used_s += seconds
        return BlockDone(steps=10, seconds=seconds)

    def token_s(self) -> float:
        return self.used_s


def run(*seconds: Seconds, pairs: Any = None, seed: int = 0, **changes: Any) -> Namespace:
    """What a session was, of members that are compared with the first."""
    timed = Namespace(log=[], looks=[])
    timed.members = [Fake(name, each, timed.log) for name, each in enumerate(seconds)]
    pairs = [(0, other) for other in range(1, len(seconds))] if pairs is None else pairs
    settings = {"pairs": pairs, "precision": 0.02, "budget_s": 10.0, **changes}
    progress = lambda *look: timed.looks.append(look)  # noqa: E731
    timed.rounds, timed.stopped = time_session(timed.members, random.Random(seed), progress=progress, **settings)
    return timed


def steady(seconds: float, blocks: int = 10**9) -> Seconds:
    """So many blocks that are all alike; the next fails."""
    return lambda number: seconds if number < blocks else None


def noisy(mean: float, spread: float, seed: int) -> Seconds:
    rng = random.Random(seed)
    return lambda number: mean * rng.lognormvariate(0, spread)


QUIET = noisy(0.1, 0.001, 1), noisy(0.1, 0.001, 2)


@given(st.integers(1, 6), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_in_every_round_each_member_has_one_block_with_the_rounds_own_seed(count, seed):
    timed = run(*[steady(0.1)] * count, budget_s=2.0, seed=seed, **FOR_EVER)
    assert all(sorted(each.order) == list(range(count)) for each in timed.rounds)
    assert timed.log == [index for each in timed.rounds for index in each.order]
    assert all(each.steps == (10,) * count and each.seconds == (0.1,) * count for each in timed.rounds)
    seeds = timed.members[0].seeds
    assert all(member.seeds == seeds for member in timed.members)
    assert len(set(seeds)) == len(seeds) == len(timed.rounds) > 1


def test_no_member_has_a_better_place():
    """ABBA: every second round is the first turned round, which is drawn anew each time."""
    rounds = run(*(noisy(0.1, 0.3, n) for n in range(3)), budget_s=40.0, **FOR_EVER).rounds
    rounds = rounds[: len(rounds) // 2 * 2]
    assert all(second.order == first.order[::-1] for first, second in zip(rounds[0::2], rounds[1::2], strict=True))
    assert len({each.order for each in rounds[0::2]}) == 6
    places = Counter((index, place) for each in rounds for place, index in enumerate(each.order))
    for index in range(3):
        assert places[index, 0] == places[index, 2]
        assert 0.2 < places[index, 0] / len(rounds) < 0.46  # about a third: the draw is fair


def test_the_same_draw_is_the_same_session():
    one, other, third = (run(*(noisy(0.1, 0.1, n) for n in range(3)), seed=seed).rounds for seed in (5, 5, 6))
    assert one == other != third


# ── when it stops ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_stops_when_every_ratio_is_precise_after_whole_pairs_of_rounds():
    timed = run(noisy(0.1, 0.03, 1), noisy(0.2, 0.03, 2), noisy(0.1, 0.03, 3), **UNPAID)
    assert timed.stopped == "precise"
    assert [number for number, _, _ in timed.looks] == list(range(MIN_ROUNDS, len(timed.rounds) + 1, LOOK_EVERY))
    *earlier, last = [width for _, width, _ in timed.looks]
    assert last <= 0.02
    assert all(width is None or width > 0.02 for width in earlier)


def drifting(seconds: Seconds) -> Seconds:
    """Slower and slower, as the machine is: both sides of a ratio alike."""
    return lambda number: (seconds(number) or 0) * (1 + number / 40)


SOON = {
    "of two": (QUIET, None),
    "that is asked for": ((*QUIET, noisy(0.1, 0.5, 3)), [(0, 1)]),
    "of two that drift": ((drifting(noisy(0.1, 0.005, 1)), drifting(noisy(0.15, 0.005, 2))), None),
    "of one alone": (QUIET[:1], None),
    "whose reference has left": ((steady(0.1, blocks=0), *QUIET), None),
}


@pytest.mark.parametrize("case", SOON)
def test_a_figure_that_is_precise_at_once_needs_no_more(case):
    seconds, pairs = SOON[case]
    timed = run(*seconds, pairs=pairs, **UNPAID)
    assert (timed.stopped, len(timed.rounds)) == ("precise", MIN_ROUNDS)
    assert timed.looks[-1][1] is not None


def test_the_worst_ratio_decides():
    assert len(run(*QUIET, noisy(0.1, 0.1, 3), **UNPAID).rounds) > 4 * MIN_ROUNDS


@pytest.mark.parametrize(
    ("seconds", "budget_s", "rounds"),
    [
        ((steady(0.1), steady(0.4)), 2.0, 5),
        ((steady(0.1),) * 2, 0.0, 1),
        ((noisy(0.1, 0.3, 1),), 1.0, 10),
        ((), 1.0, 0),
    ],
)
def test_it_stops_at_the_budget_of_the_slowest(seconds, budget_s, rounds):
    timed = run(*seconds, budget_s=budget_s, **FOR_EVER)
    assert timed.stopped == "budget"
    assert len(timed.rounds) == pytest.approx(rounds, abs=2 if len(seconds) == 1 else 0)


# ── members that leave ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_member_that_fails_leaves_and_the_others_go_on():
    timed = run(noisy(0.1, 0.03, 1), steady(0.1, blocks=3), noisy(0.1, 0.03, 3), **UNPAID)
    assert timed.stopped == "precise"
    assert len(timed.members[1].seeds) == 4  # three good ones, and the one it failed in
    assert [each.steps[1] for each in timed.rounds] == [10] * 3 + [0] * (len(timed.rounds) - 3)
    assert all(each.seconds[1] == 0.0 for each in timed.rounds[3:])
    assert all(each.steps[0] == each.steps[2] == 10 for each in timed.rounds)
    assert all(sorted(each.order) == [0, 1, 2] for each in timed.rounds)


def test_when_all_have_left_the_session_is_over():
    timed = run(steady(0.1, blocks=0), steady(0.1, blocks=2), **UNPAID)
    assert (timed.stopped, len(timed.rounds)) == ("budget", 3)
    assert [len(member.seeds) for member in timed.members] == [1, 3]
