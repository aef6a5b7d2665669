"""What a budget can find: laws, and edges. That the figure is true: ``test_rates.py``."""

from __future__ import annotations

import math

import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mnist_bench.gate.power import critical_rank_sum, detectable
from mnist_bench.gate.records import Margins
from mnist_bench.gate.speed import looks

sds = st.floats(0.001, 0.2)


def test_below_the_first_look_nothing_can_be_found() -> None:
    assert detectable(11, 1, 0.02) == math.inf
    assert detectable(12, 1, 0.02) < math.inf


def test_without_noise_the_margin_is_found() -> None:
    assert detectable(12, 1, 0.0) == pytest.approx(0.03)


def test_between_looks_more_pairs_find_no_more() -> None:
    assert detectable(12, 1, 0.04) == detectable(20, 1, 0.04) > detectable(21, 1, 0.04)


@settings(deadline=None, max_examples=25)  # each number of cells draws a sample
@given(st.integers(1, 40), sds)
def test_laws(cells: int, sd: float) -> None:
    first, second, third = (detectable(look, cells, sd) for look in looks(cells))
    assert first >= second >= third > 0.03
    pairs = looks(cells)[0]
    assert detectable(pairs, cells, 2 * sd) > first
    assert detectable(pairs, cells, sd, power=0.99) > first > detectable(pairs, cells, sd, power=0.5)
    assert detectable(looks(cells)[2], cells, sd, Margins(margin=0.05)) > third


def test_a_slow_down_that_may_pass_is_not_called_found() -> None:
    """Where pairs hardly differ, 10 % is ruled out at the first look; later ones then find nothing smaller."""
    first, _, third = (detectable(look, 1, 0.015) for look in looks(1))
    assert third > 0.9 * first
    assert detectable(36, 1, 0.06) < 0.8 * detectable(12, 1, 0.06)  # where the first look is blind, they do


def test_is_the_same_every_time() -> None:
    assert detectable(21, 3, 0.05) == detectable(21, 3, 0.05)


@pytest.mark.parametrize(("sd", "power"), [(-0.1, 0.9), (math.nan, 0.9), (math.inf, 0.9), (0.1, 0.0), (0.1, 1.0)])
def test_nonsense_is_refused(sd: float, power: float) -> None:
    with pytest.raises(ValueError, match="sd must be finite"):
        detectable(12, 1, sd, power=power)


class TestCriticalRankSum:
    def test_of_few_pairs(self) -> None:
        assert critical_rank_sum(5, 0.5**5) == 15  # all of them
        assert critical_rank_sum(5, 0.5**4) == 14
        with pytest.raises(ValueError, match="4 pairs cannot reject anything"):
            critical_rank_sum(4, 0.5**5)

    @given(st.integers(1, 25), st.floats(1e-5, 0.5))
    def test_is_the_smallest_that_scipy_rejects(self, pairs: int, alpha: float) -> None:
        assume(alpha >= 0.5**pairs)
        critical = critical_rank_sum(pairs, alpha)
        assert p_of(pairs, critical) <= alpha * (1 + 1e-9)
        assert p_of(pairs, critical - 1) > alpha


def p_of(pairs: int, rank_sum: int) -> float:
    """scipy's p-value of the values 1 to n with signs whose positive ones add up to the rank sum."""
    values = []
    for rank in range(pairs, 0, -1):
        values.append(rank if rank <= rank_sum else -rank)
        rank_sum -= rank if rank <= rank_sum else 0
    return float(scipy.stats.wilcoxon(values, alternative="greater", method="exact").pvalue)
