"""Speed: the exact test and its laws, the looks, the decisions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from simulation import process_pairs

from mnist_bench import stats
from mnist_bench.gate.records import Margins, ProcessPair, SpeedFinding
from mnist_bench.gate.speed import find_speed, level, looks, next_look, p_above, p_below

unhurried = settings(deadline=None)  # scipy's exact distribution takes milliseconds, on a busy machine more
logs = st.lists(st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=1, max_size=40)
bounds = st.floats(-0.5, 0.5).map(lambda x: round(x, 6))


def found(values: list[float] | np.ndarray, cells: int = 1, margins: Margins | None = None) -> SpeedFinding:
    finding = find_speed(process_pairs(values), cells, margins or Margins())
    assert finding is not None
    return finding


def spread(ratio: float, pairs: int, sd: float = 0.01) -> np.ndarray:
    """Log ratios about a ratio, evenly spread in a mixed order, no two equally far from it."""
    order = np.random.default_rng(0).permutation(pairs)
    return math.log(ratio) + scipy.stats.norm.ppf((order + 0.6) / (pairs + 0.1)) * sd


class TestLooks:
    @pytest.mark.parametrize(("cells", "expected"), [(1, (12, 21, 36)), (2, (13, 23, 39)), (20, (16, 28, 48))])
    def test_are_those_of_the_design(self, cells: int, expected: tuple[int, int, int]) -> None:
        assert looks(cells) == expected

    @unhurried
    @given(st.integers(1, 10_000), st.floats(1e-4, 0.5))
    def test_first_look_can_decide(self, cells: int, alpha: float) -> None:
        margins = Margins(alpha=alpha)
        first, second, third = looks(cells, margins)
        assert 0.5**first <= level(cells, margins)
        assert 12 <= first < second < third == 3 * first

    def test_next_look(self) -> None:
        assert [next_look(n, 1) for n in (0, 11, 12, 20, 21, 35)] == [12, 12, 21, 21, 36, 36]
        assert next_look(36, 1) is None
        assert next_look(100, 1) is None

    def test_level_is_shared_by_cells_and_looks(self) -> None:
        assert level(20) == pytest.approx(0.01 / 60)

    def test_a_check_without_cells_has_no_level(self) -> None:
        with pytest.raises(ValueError, match="at least one cell"):
            looks(0)


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
    @given(logs, bounds)
    def test_is_scipys(self, values: list[float], bound: float) -> None:
        shifted = np.subtract(values, bound)
        assume(len(set(np.abs(shifted).tolist())) == len(values) and np.abs(shifted).min() > 0)
        for alternative, p in (("greater", p_above(values, bound)), ("less", p_below(values, bound))):
            assert p == scipy.stats.wilcoxon(shifted, alternative=alternative, method="exact").pvalue

    @unhurried
    @given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
    def test_ties_and_zeros_never_help_to_reject(self, values: list[int], data: st.DataObject) -> None:
        """However they are told apart, the p-value is no larger."""
        size = len(values)
        moves = data.draw(st.lists(st.floats(-1e-3, 1e-3), min_size=size, max_size=size))
        apart = np.add(values, moves)
        assert p_above(apart, 0.0) <= p_above(values, 0.0)
        assert p_below(apart, 0.0) <= p_below(values, 0.0)

    def test_equal_values_are_one_side(self) -> None:
        assert p_above([0.1] * 12, 0.0) == 0.5**12
        assert p_above([0.1] * 12, 0.1) == 1.0 == p_below([0.1] * 12, 0.1)

    def test_of_two_equally_far_the_one_below_has_the_larger_rank(self) -> None:
        assert p_above([1.0, -1.0], 0.0) == p_above([1.0, -2.0], 0.0) == 0.75

    @unhurried
    @given(logs, bounds, st.floats(0, 1))
    def test_slower_is_never_less_significant(self, values: list[float], bound: float, more: float) -> None:
        assert p_above(np.add(values, more), bound) <= p_above(values, bound)
        assert p_below(np.add(values, more), bound) >= p_below(values, bound)
        assert p_above(values, bound + more) >= p_above(values, bound)

    @unhurried
    @given(logs, st.integers(0, 39), st.floats(0, 1))
    def test_one_slower_pair_is_never_less_significant(self, values: list[float], which: int, more: float) -> None:
        slower = list(values)
        slower[which % len(values)] += more
        assert p_above(slower, 0.0) <= p_above(values, 0.0)

    @unhurried
    @given(logs, bounds, st.sampled_from([0.25, 2.0, 1024.0]))
    def test_scale_does_not_matter(self, values: list[float], bound: float, scale: float) -> None:
        assert p_above(np.multiply(values, scale), bound * scale) == p_above(values, bound)

    @unhurried
    @given(logs, bounds, st.randoms(use_true_random=False))
    def test_order_does_not_matter(self, values: list[float], bound: float, random: object) -> None:
        shuffled = list(values)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        assert p_above(shuffled, bound) == p_above(values, bound)

    @pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf], [[1.0]]])
    def test_bad_samples_are_refused(self, bad: list[float]) -> None:
        with pytest.raises(ValueError, match="a sample"):
            p_above(bad, 0.0)


class TestDecisions:
    def test_without_pairs_there_is_no_finding(self) -> None:
        assert find_speed((), 1) is None

    @pytest.mark.parametrize(
        ("ratio", "decision"),
        [(1.12, "fail"), (1.05, "fail"), (1.0, "pass"), (0.95, "pass"), (0.85, "improvement"), (0.5, "improvement")],
    )
    def test_at_the_first_look(self, ratio: float, decision: str) -> None:
        finding = found(spread(ratio, 12))
        assert finding.decision == decision
        assert (finding.pairs, finding.next_look, finding.alpha) == (12, None, pytest.approx(0.01 / 3))
        assert finding.ratio.estimate == pytest.approx(ratio, rel=0.005)
        assert finding.ratio.low is not None
        assert finding.ratio.high is not None
        assert finding.ratio.low < ratio < finding.ratio.high

    def test_before_the_first_look_nothing_is_tested(self) -> None:
        finding = found(spread(2.0, 11))
        assert (finding.decision, finding.p_slower, finding.p_within, finding.next_look) == ("undecided", 1.0, 1.0, 12)
        assert finding.ratio.estimate == pytest.approx(2.0, rel=0.01)

    def test_between_looks_nothing_is_tested(self) -> None:
        """Twelve pairs that say nothing, then eight that would fail: not tested before the 21st."""
        undecided = spread(1.06, 12, sd=0.08)
        finding = found([*undecided, *spread(1.5, 8)])
        assert (finding.decision, finding.pairs, finding.next_look) == ("undecided", 20, 21)
        assert finding.p_slower == found(undecided).p_slower < 1
        assert found([*undecided, *spread(1.5, 9)]).decision == "fail"

    def test_first_decision_stands(self) -> None:
        """Pairs that came after it change nothing, not even the estimate."""
        early = spread(1.12, 12)
        assert found([*early, *spread(0.5, 30)]) == found(early)

    def test_pairs_are_taken_by_number(self) -> None:
        early, late = spread(1.12, 12), spread(0.5, 30)
        mixed = process_pairs([*early, *late])[::-1]
        assert find_speed(mixed, 1) == found(early)

    def test_fail_is_tested_before_pass(self) -> None:
        """6 % slower, precisely: shown beyond 3 %, and 10 % is ruled out."""
        finding = found(spread(1.06, 12))
        assert finding.decision == "fail"
        assert finding.p_within <= finding.alpha

    def test_after_the_last_look_there_is_none(self) -> None:
        finding = found(spread(1.06, 40, sd=0.2))
        assert (finding.decision, finding.pairs, finding.next_look) == ("undecided", 40, None)

    def test_more_cells_need_more_evidence(self) -> None:
        logs_of_one = spread(1.09, 16, sd=0.05)
        assert found(logs_of_one, cells=1).decision == "fail"
        assert found(logs_of_one, cells=20).decision == "undecided"

    def test_margins_are_the_users(self) -> None:
        strict = Margins(margin=0.005, detect=0.02)
        assert found(spread(1.02, 12, sd=0.005), margins=strict).decision == "fail"
        assert found(spread(0.97, 12, sd=0.005), margins=strict).decision == "improvement"

    def test_what_is_not_finite_is_refused(self) -> None:
        with pytest.raises(ValueError, match="finite"):
            find_speed([ProcessPair(number=0, log_ratio=math.nan, rounds=())], 1)

    @unhurried
    @given(st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=40), st.integers(1, 30))
    def test_swapping_the_sides_turns_the_finding_round(self, values: list[float], cells: int) -> None:
        there, back = found(values, cells), found([-value for value in values], cells)
        assert not {there.decision, back.decision} <= {"fail"}
        if there.decision == "improvement":
            assert back.decision == "fail"
        if there.pairs == back.pairs:
            assert back.ratio.estimate == pytest.approx(1 / there.ratio.estimate)
            if there.ratio.low is not None:
                assert back.ratio.high == pytest.approx(1 / there.ratio.low)

    @unhurried
    @given(st.lists(st.floats(-0.3, 0.3), min_size=12, max_size=12), st.floats(0, 0.5))
    def test_slower_is_never_judged_better(self, values: list[float], more: float) -> None:
        order = ["improvement", "pass", "undecided", "fail"]
        before, after = found(values).decision, found([value + more for value in values]).decision
        assert order.index(after) >= order.index(before)
