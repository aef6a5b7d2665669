"""Who leaves a race: the arithmetic, and how often it is wrong."""

import math

import numpy as np
import pytest
from race_kit import draw, rates

from mnist_bench.analysis import elimination
from mnist_bench.analysis.elimination import Fit, effects, hopeless, standing
from mnist_bench.records import Round, Session


def rounds(*step_s: tuple[float, ...], count: int = 16) -> tuple[Round, ...]:
    """Rounds in which each member takes 10 steps of so many seconds; one of 0 s has left."""
    rng = np.random.default_rng(0)
    members = len(step_s[0])

    def one(seconds: tuple[float, ...]) -> Round:
        steps = tuple(10 if s else 0 for s in seconds)
        taken = tuple(10 * s * rng.normal(1, 0.001) for s in seconds)
        return Round(order=tuple(range(members)), steps=steps, seconds=taken)

    return tuple(one(step_s[min(number, len(step_s) - 1)]) for number in range(count))


def test_a_session_says_how_far_each_member_lies_from_those_that_stayed():
    taken = rounds((1.0, 2.0, 8.0), (1.0, 2.0, 0.0))
    session = Session(group="g", members=("a", "b", "c"), paired=True, rounds=taken, steps={}, stopped="budget")
    found = effects(session, {"a": 100, "b": 200, "c": 100})
    assert found["b"] - found["a"] == pytest.approx(0.0, abs=0.005)  # twice the step, of twice the images
    assert found["c"] - found["a"] == pytest.approx(math.log(8), abs=0.005)
    assert found["a"] + found["b"] == pytest.approx(0.0, abs=0.005)


def test_only_one_that_is_far_behind_leaves_within_the_first_session():
    assert hopeless(rounds((1.0, 1.1, 1.3)), {0, 1, 2}, [100, 100, 100]) == {2}
    assert hopeless(rounds((1.0, 1.1, 1.3)), {0, 1, 2}, [100, 100, 200]) == {0, 1}  # seconds an image
    assert hopeless(rounds((1.0,)), {0}, [100]) == set()


def test_the_fit_of_whole_groups_is_the_mean_of_differences():
    groups = [{"a": 0.0, "b": 0.10}, {"a": 0.01, "b": 0.13}, {"a": -0.02, "b": 0.08}]
    gap, error = Fit(groups).behind("b", "a")
    differences = [group["b"] - group["a"] for group in groups]
    assert gap == pytest.approx(np.mean(differences))
    assert error == pytest.approx(np.std(differences, ddof=1) / math.sqrt(3))
    assert Fit(groups).freedom == 2


def test_one_that_has_left_still_tells_of_the_spread():
    more = [{"a": 0.0, "b": 0.10, "c": 0.5}, {"a": 0.01, "b": 0.13, "c": 0.48}, {"a": -0.02, "b": 0.08}]
    assert Fit(more).freedom == 8 - (3 + 3 - 1)
    assert Fit(more).behind("c", "a")[0] == pytest.approx(0.485, abs=0.02)


def test_one_group_decides_nothing_but_one_that_is_left():
    one = standing([{"a": 0.0, "b": 0.5}], ["a", "b"], precision=0.02, over=False)
    assert (one.alive, one.left, one.decided) == (["a", "b"], {}, False)
    out = standing([{"a": 0.0, "b": 0.5}], ["a", "b"], precision=0.02, early=["b"], over=False)
    assert (out.alive, out.left["b"].groups, out.decided) == (["a"], 1, True)
    assert out.left["b"].ratio.high < 1
    assert standing([], ["a", "b"], precision=0.02, over=False).alive == ["a", "b"]


def test_ratios_hold_1_exactly_where_nothing_is_shown():
    rng = np.random.default_rng(5)
    for _ in range(40):
        found = draw([0.0, 0.01, 0.03, 0.06, 0.25], 0.02, rng).standing
        leader, rest = found.alive[0], found.alive[1:]
        assert all(found.ratio(one, leader).high >= 1 for one in rest)
        assert all(one.ratio.high < 1 for one in found.left.values())
        assert found.ratio(leader, leader).estimate == 1.0


def test_the_last_look_ends_a_race_that_nothing_tells_apart():
    rng = np.random.default_rng(3)
    groups = [{name: rng.normal(0, 0.2) for name in "abc"} for _ in range(elimination.LOOKS[-1])]
    assert not standing(groups[:-1], [*"abc"], precision=0.001, over=False).decided
    assert standing(groups, [*"abc"], precision=0.001, over=False).decided


@pytest.mark.parametrize("sd", [0.015, 0.04])
def test_the_fastest_stays_and_one_5_percent_behind_leaves(sd):
    """150 draws; ``make bars`` has 4,000. The bounds are three standard errors off 95 %."""
    found = rates(sd, 150)
    assert found.kept >= 0.90
    assert found.dropped >= 0.90
    assert found.time <= 0.65


def test_a_guard_without_its_share_of_looks_would_lose_the_fastest(monkeypatch):
    monkeypatch.setattr(elimination, "EARLY", 0.5)
    monkeypatch.setattr(elimination, "FINAL", 0.5)
    rng = np.random.default_rng(1)
    lost = sum("0" not in draw([0.0] * 9, 0.03, rng).standing.alive for _ in range(60))
    assert lost > 6
