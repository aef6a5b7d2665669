"""The light mode's judgement of speed: its error rates by simulation, without training, and how it is made."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from mnist_bench.analysis.ratios import PROCESS_SD
from mnist_bench.gate.baseline_speed import judge_ratio, mean_ratio, ratios_compared, seeds_needed, shift_of
from mnist_bench.gate.records import CellEvidence, Margins, RatioEvidence, SessionLogRatio
from mnist_bench.records import Cell

MARGINS = Margins()
CELLS = 20
VARIANTS = 5  # that share a reference, and so its process
WITHIN_SD = 0.008  # of a session's median over its rounds
STATED_SD = math.hypot(PROCESS_SD, WITHIN_SD)


class Rates(NamedTuple):
    """Of checks with at least one ``fail``; of cells that were decided so."""

    alarms: float
    fail: float
    passed: float
    undecided: float


def side(*log_ratios: float, sd: float = STATED_SD) -> tuple[SessionLogRatio, ...]:
    return tuple(SessionLogRatio(seed=n, log_ratio=one, sd=sd, rounds=30) for n, one in enumerate(log_ratios))


def evidence(a: tuple[SessionLogRatio, ...], b: tuple[SessionLogRatio, ...]) -> RatioEvidence:
    return RatioEvidence(reference="mlp/cpu/b100/eager", a=a, b=b)


def draw(rng: np.random.Generator, seeds: int, process_sd: float) -> np.ndarray:
    """Session medians of one side, shape (cells, seeds): every session has a process of its cell, and shares one of the
    reference with the other variants of its group."""
    each = process_sd / math.sqrt(2)
    own = rng.normal(0, each, (CELLS, seeds))
    shared = np.repeat(rng.normal(0, each, (CELLS // VARIANTS, seeds)), VARIANTS, axis=0)
    return own - shared + rng.normal(0, WITHIN_SD, (CELLS, seeds))


def simulate(checks: int, seeds: int, ratio: float, process_sd: float = PROCESS_SD) -> Rates:
    """Checks of 20 cells, all of them slower by ``ratio``; errors are stated as the project states them."""
    rng = np.random.default_rng(20)
    decisions = []
    for _ in range(checks):
        a, b = draw(rng, seeds, process_sd), draw(rng, seeds, process_sd) + math.log(ratio)
        found = [judge_ratio(evidence(side(*x), side(*y)), CELLS, MARGINS) for x, y in zip(a, b, strict=True)]
        decisions.append([one.decision for one in found if one is not None])
    all_of_them = [one for check in decisions for one in check]
    shares = {word: all_of_them.count(word) / len(all_of_them) for word in ("fail", "pass", "undecided")}
    return Rates(np.mean(["fail" in check for check in decisions]), *shares.values())


@pytest.mark.parametrize("seeds", [1, 3])
def test_same_code_raises_no_alarm(seeds: int) -> None:
    assert simulate(1000, seeds, 1.0).alarms <= 0.01


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_is_tolerated_raises_no_alarm(seeds: int) -> None:
    """The worst case that is no regression: every cell slower by just the margin."""
    assert simulate(600, seeds, 1 + MARGINS.margin).alarms <= 0.01


@pytest.mark.parametrize("seeds", [1, 3])
def test_processes_that_differ_by_twice_as_much_raise_few_alarms(seeds: int) -> None:
    """mlp's did, in a noisy hour (README): what a session states is then too small by nearly half."""
    assert simulate(600, seeds, 1.0, process_sd=2 * PROCESS_SD).alarms <= 0.03


def test_three_seeds_pass_what_is_unchanged() -> None:
    assert simulate(100, 3, 1.0).passed >= 0.97


@pytest.mark.parametrize(("slower", "least"), [(1.15, 0.99), (1.20, 0.999)])
def test_three_seeds_find_a_slow_down(slower: float, least: float) -> None:
    assert simulate(100, 3, slower).fail >= least


def test_one_seed_finds_twenty_percent_and_often_cannot_tell() -> None:
    assert simulate(100, 1, 1.20).fail >= 0.85
    assert simulate(100, 1, 1.15).fail >= 0.25
    assert simulate(100, 1, 1.0).undecided >= 0.6


def test_a_slow_down_that_must_be_seen_hardly_passes() -> None:
    """Whoever passes is certified: a slow-down of 10 % passes at most as often as the level says."""
    assert simulate(100, 3, 1 + MARGINS.detect).passed <= 0.001


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_intervals_hold_the_truth(seeds: int) -> None:
    """At least 95 %: a scatter that happens to be small does not narrow them."""
    rng = np.random.default_rng(seeds)
    held = 0
    for _ in range(1500):
        a, b = draw(rng, seeds, PROCESS_SD)[0], draw(rng, seeds, PROCESS_SD)[0] + math.log(1.07)
        ratio = judge_ratio(evidence(side(*a), side(*b)), 1, MARGINS).ratio  # type: ignore[union-attr]
        held += ratio.low <= 1.07 <= ratio.high  # type: ignore[operator]
    assert 0.94 <= held / 1500 <= 0.99


class TestShift:
    def test_is_the_difference_of_the_means(self) -> None:
        shift = shift_of(side(0.1, 0.3), side(0.5))
        assert shift.estimate == pytest.approx(0.3)
        assert shift.freedom == 11

    def test_error_is_that_which_the_sessions_state(self) -> None:
        shift = shift_of(side(0.2, 0.2, sd=0.02), side(0.2, sd=0.01))
        assert shift.error == pytest.approx(math.sqrt(0.02**2 / 2 + 0.01**2))

    def test_sessions_that_scatter_more_than_they_state_stretch_it(self) -> None:
        calm = shift_of(side(0.0, 0.0, 0.0), side(0.0))
        wild = shift_of(side(-0.1, 0.0, 0.1), side(0.0))
        scatter = 2 * (0.1 / STATED_SD) ** 2
        assert wild.error == pytest.approx(calm.error * math.sqrt((10 + scatter) / 12))

    def test_one_side_has_an_interval_too(self) -> None:
        found = mean_ratio(side(0.1, 0.2))
        assert found.low is not None
        assert found.high is not None
        assert found.estimate == pytest.approx(0.15)
        assert found.estimate - found.low == pytest.approx(found.high - found.estimate)


class TestFinding:
    def test_a_side_without_a_session_has_none(self) -> None:
        assert judge_ratio(evidence((), side(0.1)), 1, MARGINS) is None
        assert judge_ratio(evidence(side(0.1), ()), 1, MARGINS) is None
        assert seeds_needed(evidence((), side(0.1)), 1, MARGINS) is None

    def test_says_what_it_rests_on(self) -> None:
        found = judge_ratio(evidence(side(0.1, 0.1, 0.1), side(0.3, 0.3)), 4, MARGINS)
        assert found is not None
        assert (found.decision, found.pairs, found.unit, found.next_look) == ("fail", 2, "session", None)
        assert found.alpha == MARGINS.alpha / 4
        assert found.ratio.estimate == pytest.approx(math.exp(0.2))
        assert found.p_slower < found.alpha < found.p_within

    def test_faster_by_far_is_an_improvement(self) -> None:
        found = judge_ratio(evidence(side(0.5, 0.5, 0.5), side(0.2, 0.2, 0.2)), 1, MARGINS)
        assert found is not None
        assert found.decision == "improvement"

    def test_p_values_are_those_of_student(self) -> None:
        from scipy.stats import t

        one, other = side(0.0, 0.01), side(0.08, 0.06)
        found = judge_ratio(evidence(one, other), 1, MARGINS)
        shift = shift_of(one, other)
        assert found is not None
        assert found.p_slower == pytest.approx(t.sf((shift.estimate - math.log(1.03)) / shift.error, shift.freedom))
        assert found.p_within == pytest.approx(t.cdf((shift.estimate - math.log(1.10)) / shift.error, shift.freedom))

    def test_more_cells_need_more_proof(self) -> None:
        shifted = evidence(side(0.0, 0.0, 0.0), side(0.08, 0.08, 0.08))
        decisions = [judge_ratio(shifted, cells, MARGINS).decision for cells in (1, 1000)]  # type: ignore[union-attr]
        assert decisions == ["fail", "undecided"]


class TestSeedsNeeded:
    def test_that_many_decide(self) -> None:
        one = evidence(side(0.0), side(0.0))
        needed = seeds_needed(one, CELLS, MARGINS)
        assert needed is not None
        assert 2 <= needed <= 5
        decided = evidence(side(*[0.0] * needed), side(*[0.0] * needed))
        assert judge_ratio(decided, CELLS, MARGINS).decision == "pass"  # type: ignore[union-attr]
        fewer = evidence(side(*[0.0] * (needed - 1)), side(*[0.0] * (needed - 1)))
        assert judge_ratio(fewer, CELLS, MARGINS).decision == "undecided"  # type: ignore[union-attr]

    def test_what_lies_between_the_margins_needs_the_most(self) -> None:
        sure, open_ = (seeds_needed(evidence(side(0.0), side(shift)), 1, MARGINS) for shift in (0.0, 0.0625))
        assert sure is not None
        assert open_ is not None
        assert sure < open_ < 30

    def test_hopeless_noise_is_said_to_be(self) -> None:
        assert seeds_needed(evidence(side(0.0, sd=2.0), side(0.06, sd=2.0)), 1, MARGINS) is None


def test_only_cells_with_both_ratios_count() -> None:
    cell = CellEvidence(cell=Cell(model="mlp", device="cpu", batch_size=100, variant="compile"))
    both, none = evidence(side(0.1), side(0.1)), evidence((), ())
    assert ratios_compared([cell, replace(cell, ratios=both), replace(cell, ratios=none)]) == 1


@pytest.mark.parametrize("sds", [(1e-9, 50.0), (50.0, 50.0), (1e-9, 1e-9)])
def test_whatever_can_stand_in_a_file_is_judged(sds: tuple[float, float]) -> None:
    """The widest that the bounds of a stored ratio leave: no overflow, no division by nothing."""
    a, b = side(-50.0, 50.0, sd=sds[0]), side(50.0, 50.0, sd=sds[1])
    found = judge_ratio(evidence(a, b), 1, MARGINS)
    assert found is not None
    assert found.ratio.low is not None
    assert found.ratio.high is not None
    assert 0 < found.ratio.low <= found.ratio.estimate <= found.ratio.high < math.inf
    assert 0 < mean_ratio(a).exp().estimate < math.inf
    assert (seeds_needed(evidence(a, b), 1, MARGINS) or 1) >= 1
