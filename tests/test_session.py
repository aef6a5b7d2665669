"""The order in which live trials hand the token on, and when a session stops: members made up, no clock."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_bench.records import Round
from mnist_bench.run.protocol import BlockDone
from mnist_bench.run.session import LOOK_EVERY, MIN_ROUNDS, time_session

Seconds = Callable[[int], float | None]  # of the n-th block; None: the member fails in it


class Fake:
    """A member whose n-th block of 10 steps takes ``seconds(n)``; it writes its name into ``log``."""

    def __init__(self, name: int, seconds: Seconds, log: list[int]) -> None:
        self._name, self._seconds, self._log = name, seconds, log
        self.blocks = 0
        self.seeds: list[int] = []
        self._token_s = 0.0

    def block(self, seed: int) -> BlockDone | None:
        self._log.append(self._name)
        self.seeds.append(seed)
        seconds = self._seconds(self.blocks)
        self.blocks += 1
        if seconds is None:
            return None
        self._token_s += seconds
        return BlockDone(steps=10, seconds=seconds)

    def token_s(self) -> float:
        return self._token_s


def noisy(mean: float, spread: float, seed: int) -> Seconds:
    rng = random.Random(seed)
    return lambda number: mean * rng.lognormvariate(0, spread)


def run(
    seconds: Sequence[Seconds], *, precision: float = 0.02, budget_s: float = 10.0, seed: int = 0, pairs: object = None
) -> tuple[tuple[Round, ...], str, list[Fake], list[int], list[tuple[int, float | None, float]]]:
    log: list[int] = []
    looks: list[tuple[int, float | None, float]] = []
    members = [Fake(name, each, log) for name, each in enumerate(seconds)]
    chosen = tuple((0, other) for other in range(1, len(members))) if pairs is None else pairs
    rounds, stopped = time_session(
        members,
        random.Random(seed),
        pairs=chosen,  # type: ignore[arg-type]
        precision=precision,
        budget_s=budget_s,
        progress=lambda *look: looks.append(look),
    )
    return rounds, stopped, members, log, looks


def positions(rounds: Sequence[Round]) -> Counter[tuple[int, int]]:
    return Counter((index, place) for each in rounds for place, index in enumerate(each.order))


@given(st.integers(1, 6), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_in_every_round_each_member_has_one_block(count: int, seed: int) -> None:
    rounds, _, members, log, _ = run([lambda n: 0.1] * count, precision=1e-9, budget_s=2.0, seed=seed)
    assert all(sorted(each.order) == list(range(count)) for each in rounds)
    assert log == [index for each in rounds for index in each.order]
    assert all(member.blocks == len(rounds) for member in members)
    assert all(each.steps == (10,) * count and each.seconds == (0.1,) * count for each in rounds)


def test_every_second_round_is_the_first_turned_round() -> None:
    rounds, _, _, _, _ = run([noisy(0.1, 0.3, n) for n in range(4)], precision=1e-9, budget_s=6.0)
    assert len(rounds) > 40
    for first, second in zip(rounds[0::2], rounds[1::2], strict=False):
        assert second.order == first.order[::-1]
    assert len({each.order for each in rounds[0::2]}) > 5  # drawn anew each time


def test_no_member_has_a_better_place() -> None:
    """ABBA: over whole pairs of rounds, before and after every other member equally often."""
    rounds, _, _, _, _ = run([noisy(0.1, 0.3, n) for n in range(3)], precision=1e-9, budget_s=40.0)
    rounds = rounds[: len(rounds) // 2 * 2]
    for one in range(3):
        for other in range(one):
            before = sum(each.order.index(one) < each.order.index(other) for each in rounds)
            assert before * 2 == len(rounds)
    ends = positions(rounds)
    for index in range(3):
        assert ends[index, 0] == ends[index, 2]
        assert 0.2 < ends[index, 0] / len(rounds) < 0.46  # about a third: the draw is fair


def test_a_rounds_seed_is_its_members_own_and_no_other_rounds() -> None:
    _, _, members, _, _ = run([lambda n: 0.1] * 2, precision=1e-9, budget_s=3.0)
    one, other = (member.seeds for member in members)
    assert one == other
    assert len(set(one)) == len(one) > 1


def test_the_same_draw_is_the_same_session() -> None:
    one, other = (run([noisy(0.1, 0.1, n) for n in range(3)], seed=5)[0] for _ in range(2))
    assert one == other
    assert one != run([noisy(0.1, 0.1, n) for n in range(3)], seed=6)[0]


# ── when it stops ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_stops_when_every_ratio_is_precise_after_whole_pairs_of_rounds() -> None:
    rounds, stopped, _, _, looks = run([noisy(0.1, 0.03, 1), noisy(0.2, 0.03, 2), noisy(0.1, 0.03, 3)], budget_s=1e9)
    assert stopped == "precise"
    assert len(rounds) >= MIN_ROUNDS
    assert len(rounds) % LOOK_EVERY == 0
    assert [number for number, _, _ in looks] == list(range(MIN_ROUNDS, len(rounds) + 1, LOOK_EVERY))
    *earlier, last = [width for _, width, _ in looks]
    assert last is not None
    assert last <= 0.02
    assert all(width is None or width > 0.02 for width in earlier)


def test_the_worst_ratio_decides() -> None:
    good = [noisy(0.1, 0.001, 1), noisy(0.1, 0.001, 2)]
    assert len(run(good, budget_s=1e9)[0]) == MIN_ROUNDS
    assert len(run([*good, noisy(0.1, 0.1, 3)], budget_s=1e9)[0]) > 4 * MIN_ROUNDS


def test_only_the_ratios_that_are_asked_for_count() -> None:
    seconds = [noisy(0.1, 0.001, 1), noisy(0.1, 0.001, 2), noisy(0.1, 0.5, 3)]
    assert len(run(seconds, budget_s=1e9, pairs=((0, 1),))[0]) == MIN_ROUNDS


def test_it_stops_at_the_budget_of_the_slowest() -> None:
    rounds, stopped, members, _, _ = run([lambda n: 0.1, lambda n: 0.4], precision=1e-9, budget_s=2.0)
    assert stopped == "budget"
    assert len(rounds) == 5  # 5 x 0.4 s
    assert members[1].token_s() == pytest.approx(2.0)


def test_a_tiny_budget_buys_one_round() -> None:
    rounds, stopped, _, _, looks = run([lambda n: 0.1] * 2, budget_s=0.0)
    assert (len(rounds), stopped, looks) == (1, "budget", [])


def test_drift_of_the_machine_is_no_noise() -> None:
    """Both sides slow down together by 30 % over the session: the ratio does not care."""
    one, other = noisy(0.1, 0.005, 1), noisy(0.15, 0.005, 2)
    rounds, stopped, _, _, _ = run(
        [lambda n: (one(n) or 0) * (1 + n / 40), lambda n: (other(n) or 0) * (1 + n / 40)], budget_s=1e9
    )
    assert stopped == "precise"
    assert len(rounds) == MIN_ROUNDS


def test_a_member_alone_is_timed_until_its_own_figure_is_precise() -> None:
    rounds, stopped, _, _, looks = run([noisy(0.1, 0.03, 1)], budget_s=1e9)
    assert stopped == "precise"
    assert all(each.order == (0,) for each in rounds)
    assert looks[-1][1] is not None
    assert run([noisy(0.1, 0.3, 1)], budget_s=1.0)[1] == "budget"


# ── members that leave ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_member_that_fails_leaves_and_the_others_go_on() -> None:
    seconds: list[Seconds] = [noisy(0.1, 0.03, 1), lambda n: 0.1 if n < 3 else None, noisy(0.1, 0.03, 3)]
    rounds, stopped, members, log, _ = run(seconds, budget_s=1e9)
    assert stopped == "precise"
    assert members[1].blocks == 4  # three good ones, and the one it failed in
    assert [each.steps[1] for each in rounds[:3]] == [10] * 3
    assert all(each.steps[1] == 0 and each.seconds[1] == 0.0 for each in rounds[3:])
    assert all(each.steps[0] == each.steps[2] == 10 for each in rounds)
    failed_at = [position for position, name in enumerate(log) if name == 1][3]
    assert 1 not in log[failed_at + 1 :]


def test_when_all_have_left_the_session_is_over() -> None:
    rounds, stopped, members, _, _ = run([lambda n: None, lambda n: 0.1 if n < 2 else None], budget_s=1e9)
    assert stopped == "budget"
    assert len(rounds) == 3
    assert [member.blocks for member in members] == [1, 3]


def test_without_members_there_are_no_rounds() -> None:
    assert run([])[0] == ()


def test_when_the_reference_leaves_the_others_are_timed_for_themselves() -> None:
    rounds, stopped, _, _, _ = run([lambda n: None, noisy(0.1, 0.001, 1), noisy(0.1, 0.001, 2)], budget_s=1e9)
    assert stopped == "precise"
    assert len(rounds) == MIN_ROUNDS


def test_the_order_is_recorded_as_it_was() -> None:
    rounds, _, _, log, _ = run([lambda n: 0.1 if n < 4 else None, lambda n: 0.1], precision=1e-9, budget_s=1.2)
    assert [len(each.order) for each in rounds] == [2] * len(rounds)
    alive = [index for each in rounds for index in each.order if each.steps[index]]
    assert len(log) == len(alive) + 1  # the failed block
    assert not any(one == other == 0 for one, other in pairwise(log[9:]))
