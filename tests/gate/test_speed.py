"""Speed: the exact test and its laws, looks and decisions, what a budget can find, the ratios of two runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from gate_kit import sessions
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mnist_bench import stats
from mnist_bench.analysis.ratios import PROCESS_SD
from mnist_bench.gate.evidence import Margins, SessionRatio
from mnist_bench.gate.speed import (
    SpeedFinding,
    critical_rank_sum,
    detectable,
    find_shift,
    find_speed,
    level,
    looks,
    p_above,
    p_below,
    seeds_needed,
    shift_of,
)

unhurried = settings(deadline=None)  # scipy's exact distribution takes milliseconds, on a busy machine more
logs = st.lists(st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=1, max_size=40)
bounds = st.floats(-0.5, 0.5).map(lambda x: round(x, 6))


def found(values: list[float] | np.ndarray, cells: int = 1, margins: Margins | None = None) -> SpeedFinding:
    finding = find_speed(list(values), cells, margins or Margins())
    assert finding is not None
    return finding


def spread(ratio: float, pairs: int, sd: float = 0.01) -> np.ndarray:
    """Log ratios about a ratio, evenly spread in a mixed order, no two equally far from it."""
    order = np.random.default_rng(0).permutation(pairs)
    return math.log(ratio) + scipy.stats.norm.ppf((order + 0.6) / (pairs + 0.1)) * sd


class TestLooks:
    @pytest.mark.parametrize(
        ("cells", "expected"), [(1, (9, 12, 21, 36)), (2, (10, 13, 23, 39)), (20, (13, 16, 28, 48))]
    )
    def test_are_those_of_the_design(self, cells: int, expected: tuple[int, ...]) -> None:
        assert looks(cells) == expected

    @unhurried
    @given(st.integers(1, 10_000), st.floats(1e-4, 0.5))
    def test_first_look_has_the_fewest_pairs_that_can_decide(self, cells: int, alpha: float) -> None:
        margins = Margins(alpha=alpha)
        first, second, third, fourth = looks(cells, margins)
        assert 0.5**first <= level(cells, margins) < 0.5 ** (first - 1)
        assert first < second < third < fourth == 3 * second


class TestExactTest:
    @unhurried
    @given(logs, bounds)
    def test_is_the_tail_of_the_exact_distribution(self, values: list[float], bound: float) -> None:
        distances = np.abs(np.subtract(values, bound))
        assume(len(set(distances.tolist())) == len(values) and distances.min() > 0)
        ranks = scipy.stats.rankdata(distances)
        rank_sum = round(ranks[np.greater(values, bound)].sum())
        tail = stats.signed_rank_distribution(len(values))[rank_sum:].sum()
        assert p_above(values, bound) == pytest.approx(tail, rel=1e-9)

    @unhurried
    @given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
    def test_ties_and_zeros_never_help_to_reject(self, values: list[int], data: st.DataObject) -> None:
        """However they are told apart, the p-value is no larger."""
        size = len(values)
        moves = data.draw(st.lists(st.floats(-1e-3, 1e-3), min_size=size, max_size=size))
        apart = np.add(values, moves)
        assert p_above(apart, 0.0) <= p_above(values, 0.0)
        assert p_below(apart, 0.0) <= p_below(values, 0.0)

    def test_of_two_equally_far_the_one_below_has_the_larger_rank(self) -> None:
        assert p_above([1.0, -1.0], 0.0) == p_above([1.0, -2.0], 0.0) == 0.75

    @unhurried
    @given(logs, bounds, st.floats(0, 1))
    def test_slower_is_never_less_significant(self, values: list[float], bound: float, more: float) -> None:
        assert p_above(np.add(values, more), bound) <= p_above(values, bound)
        assert p_below(np.add(values, more), bound) >= p_below(values, bound)
        assert p_above(values, bound + more) >= p_above(values, bound)


class TestDecisions:
    @pytest.mark.parametrize(
        ("ratio", "decision"),
        [(1.12, "fail"), (1.05, "fail"), (1.0, "pass"), (0.95, "pass"), (0.85, "improvement"), (0.5, "improvement")],
    )
    def test_at_the_first_look(self, ratio: float, decision: str) -> None:
        finding = found(spread(ratio, 9))
        assert finding.decision == decision
        assert (finding.count, finding.next_look, finding.alpha) == (9, None, pytest.approx(0.01 / 4))
        assert finding.ratio.estimate == pytest.approx(1 / ratio, rel=0.005)
        assert finding.ratio.low is not None
        assert finding.ratio.high is not None
        assert finding.ratio.low < 1 / ratio < finding.ratio.high

    def test_before_the_first_look_nothing_is_tested(self) -> None:
        finding = found(spread(2.0, 8))
        assert (finding.decision, finding.p_slower, finding.p_within, finding.next_look) == ("undecided", 1.0, 1.0, 9)
        assert finding.ratio.estimate == pytest.approx(0.5, rel=0.01)

    def test_between_looks_nothing_is_tested(self) -> None:
        """Twelve pairs that say nothing, then eight that would fail: not tested before the 21st."""
        undecided = spread(1.06, 12, sd=0.08)
        finding = found([*undecided, *spread(1.5, 8)])
        assert (finding.decision, finding.count, finding.next_look) == ("undecided", 20, 21)
        assert finding.p_slower == found(undecided).p_slower < 1
        assert found([*undecided, *spread(1.5, 9)]).decision == "fail"

    def test_first_decision_stands(self) -> None:
        """Pairs that came after it change nothing, not even the estimate."""
        early = spread(1.12, 9)
        assert found([*early, *spread(0.5, 30)]) == found(early)

    def test_fail_is_tested_before_pass(self) -> None:
        """6 % slower, precisely: shown beyond 3 %, and 10 % is ruled out."""
        finding = found(spread(1.06, 12))
        assert finding.decision == "fail"
        assert finding.p_within <= finding.alpha

    def test_margins_are_the_users(self) -> None:
        strict = Margins(margin=0.005, detect=0.02)
        assert found(spread(1.02, 12, sd=0.005), margins=strict).decision == "fail"
        assert found(spread(0.97, 12, sd=0.005), margins=strict).decision == "improvement"

    @unhurried
    @given(st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=40), st.integers(1, 30))
    def test_swapping_the_sides_turns_the_finding_round(self, values: list[float], cells: int) -> None:
        there, back = found(values, cells), found([-value for value in values], cells)
        assert not {there.decision, back.decision} <= {"fail"}
        if there.decision == "improvement":
            assert back.decision == "fail"
        if there.count == back.count:
            assert back.ratio.estimate == pytest.approx(1 / there.ratio.estimate)
            if there.ratio.low is not None:
                assert back.ratio.high == pytest.approx(1 / there.ratio.low)

    @unhurried
    @given(st.lists(st.floats(-0.3, 0.3), min_size=12, max_size=12), st.floats(0, 0.5))
    def test_slower_is_never_judged_better(self, values: list[float], more: float) -> None:
        order = ["improvement", "pass", "undecided", "fail"]
        before, after = found(values).decision, found([value + more for value in values]).decision
        assert order.index(after) >= order.index(before)


class TestDetectable:
    def test_between_looks_more_pairs_find_no_more(self) -> None:
        assert detectable(12, 1, 0.04) == detectable(20, 1, 0.04) > detectable(21, 1, 0.04)

    @settings(deadline=None, max_examples=25)  # each number of cells draws a sample
    @given(st.integers(1, 40), st.floats(0.001, 0.2))
    def test_laws(self, cells: int, sd: float) -> None:
        found = [detectable(look, cells, sd) for look in looks(cells)]
        assert found == sorted(found, reverse=True)
        assert found[-1] > 0.03
        pairs = looks(cells)[0]
        assert detectable(pairs, cells, 2 * sd) > found[0]
        assert detectable(pairs, cells, sd, power=0.99) > found[0] > detectable(pairs, cells, sd, power=0.5)
        assert detectable(looks(cells)[-1], cells, sd, Margins(margin=0.05)) > found[-1]

    def test_of_few_pairs(self) -> None:
        assert critical_rank_sum(5, 0.5**5) == 15  # all of them
        assert critical_rank_sum(5, 0.5**4) == 14
        with pytest.raises(ValueError, match="4 pairs cannot reject anything"):
            critical_rank_sum(4, 0.5**5)


class TestTwoRuns:
    """A ratio of ratios: its error rates by simulation, without training, and how it is made."""

    CELLS = 20
    VARIANTS = 5  # that share a reference, and so its process
    WITHIN_SD = 0.008  # of a session's median over its rounds
    MARGINS = Margins()

    def draw(self, rng: np.random.Generator, seeds: int, process_sd: float) -> np.ndarray:
        """Session medians of one side, shape (cells, seeds): every session has a process of its cell, and shares one of
        the reference with the other variants of its group."""
        each = process_sd / math.sqrt(2)
        own = rng.normal(0, each, (self.CELLS, seeds))
        shared = np.repeat(rng.normal(0, each, (self.CELLS // self.VARIANTS, seeds)), self.VARIANTS, axis=0)
        return own - shared + rng.normal(0, self.WITHIN_SD, (self.CELLS, seeds))

    def side(self, log_ratios: np.ndarray) -> tuple[SessionRatio, ...]:
        return sessions(*log_ratios.tolist(), sd=math.hypot(PROCESS_SD, self.WITHIN_SD))

    def decisions(self, checks: int, seeds: int, ratio: float, process_sd: float = PROCESS_SD) -> np.ndarray:
        """Of checks of 20 cells, all of them slower by ``ratio``; errors are stated as the project states them."""
        rng = np.random.default_rng(20)
        found = []
        for _ in range(checks):
            a, b = self.draw(rng, seeds, process_sd), self.draw(rng, seeds, process_sd) + math.log(ratio)
            both = zip(map(self.side, a), map(self.side, b), strict=True)
            found.append([find_shift(x, y, self.CELLS, self.MARGINS).decision for x, y in both])  # type: ignore[union-attr]
        return np.array(found)

    @pytest.mark.parametrize("seeds", [1, 3])
    @pytest.mark.parametrize(("ratio", "process_sd", "most"), [(1.0, 1, 0.01), (1.03, 1, 0.01), (1.0, 2, 0.03)])
    def test_what_is_tolerated_raises_no_alarm(self, seeds: int, ratio: float, process_sd: float, most: float) -> None:
        """Nor does mlp, whose processes differed by twice as much in a noisy hour: what a session states is then too
        small by nearly half."""
        decisions = self.decisions(600, seeds, ratio, process_sd * PROCESS_SD)
        assert (decisions == "fail").any(axis=1).mean() <= most

    @pytest.mark.parametrize(
        ("seeds", "ratio", "decision", "least"),
        [
            (3, 1.0, "pass", 0.97),
            (3, 1.15, "fail", 0.99),
            (3, 1.20, "fail", 0.999),
            (1, 1.20, "fail", 0.85),
            (1, 1.15, "fail", 0.25),
            (1, 1.0, "undecided", 0.6),
        ],
    )
    def test_finds_what_it_should(self, seeds: int, ratio: float, decision: str, least: float) -> None:
        assert (self.decisions(100, seeds, ratio) == decision).mean() >= least

    def test_a_slow_down_that_must_be_seen_hardly_passes(self) -> None:
        """Whoever passes is certified: a slow-down of 10 % passes at most as often as the level says."""
        assert (self.decisions(100, 3, 1.10) == "pass").mean() <= 0.001

    @pytest.mark.parametrize("seeds", [1, 2, 3, 5])
    def test_intervals_hold_the_truth(self, seeds: int) -> None:
        """At least 95 %: a scatter that happens to be small does not narrow them."""
        rng = np.random.default_rng(seeds)
        held = 0
        for _ in range(1500):
            a, b = self.draw(rng, seeds, PROCESS_SD)[0], self.draw(rng, seeds, PROCESS_SD)[0] + math.log(1.07)
            ratio = shift_of((self.side(a), -1), (self.side(b), 1)).faster
            held += ratio.low <= 1 / 1.07 <= ratio.high  # type: ignore[operator]
        assert 0.94 <= held / 1500 <= 0.99

    def test_is_the_difference_of_the_means_with_the_error_that_the_sessions_state(self) -> None:
        shift = shift_of((sessions(0.1, 0.3, sd=0.2), -1), (sessions(0.5, sd=0.1), 1))
        assert (shift.estimate, shift.freedom) == (pytest.approx(0.3), 11)
        assert shift.error == pytest.approx(math.sqrt(0.2**2 / 2 + 0.1**2))

    def test_p_values_are_those_of_student(self) -> None:
        a, b = sessions(0.0, 0.01), sessions(0.08, 0.06, 0.07)
        found, shift = find_shift(a, b, 4, Margins()), shift_of((a, -1), (b, 1))
        assert found is not None
        assert (found.count, found.unit, found.next_look, found.alpha) == (2, "session", None, 0.01 / 4)
        assert found.ratio.estimate == pytest.approx(math.exp(-shift.estimate))
        scaled = [(shift.estimate - math.log(bound)) / shift.error for bound in (1.03, 1.10)]
        assert found.p_slower == pytest.approx(scipy.stats.t.sf(scaled[0], shift.freedom))
        assert found.p_within == pytest.approx(scipy.stats.t.cdf(scaled[1], shift.freedom))
        assert find_shift((), b, 4, Margins()) is None

    def test_so_many_seeds_decide(self) -> None:
        needed = seeds_needed(sessions(0.0), sessions(0.0), self.CELLS, Margins())
        assert needed in range(2, 6)
        for seeds, decision in ((needed, "pass"), (needed - 1, "undecided")):
            one = sessions(*[0.0] * seeds)
            assert find_shift(one, one, self.CELLS, Margins()).decision == decision  # type: ignore[union-attr]
        between = seeds_needed(sessions(0.0), sessions(0.0625), 1, Margins())
        assert between is not None
        assert needed < between < 30
        assert seeds_needed(sessions(0.0, sd=2.0), sessions(0.06, sd=2.0), 1, Margins()) is None

    @pytest.mark.parametrize("sds", [(1e-9, 50.0), (50.0, 50.0), (1e-9, 1e-9)])
    def test_whatever_can_stand_in_a_file_is_judged(self, sds: tuple[float, float]) -> None:
        """The widest that the bounds of a stored ratio leave: no overflow, no division by nothing."""
        a, b = sessions(-46.0, 46.0, sd=sds[0]), sessions(46.0, 46.0, sd=sds[1])
        found = find_shift(a, b, 1, Margins())
        assert found is not None
        assert found.ratio.low is not None
        assert found.ratio.high is not None
        assert 0 < found.ratio.low <= found.ratio.estimate <= found.ratio.high < math.inf
        assert (seeds_needed(a, b, 1, Margins()) or 1) >= 1
