import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mnist_bench import stats
from mnist_bench.stats import Interval

samples = st.lists(st.floats(-100, 100).map(lambda x: round(x, 6)), min_size=1, max_size=40)
sides = st.lists(st.floats(-3, 3), min_size=1, max_size=8)


@given(st.lists(st.lists(st.floats(-9, 9) | st.just(math.nan), min_size=3, max_size=3), max_size=9))
def test_medians_of_columns_are_numpys(rows):
    columns = np.array(rows).reshape(-1, 3)
    known = [column[~np.isnan(column)] for column in columns.T]
    np.testing.assert_array_equal(stats.medians(columns), [np.median(x) if x.size else math.nan for x in known])
    assert [stats.median(x) for x in known if x.size] == [float(np.median(x)) for x in known if x.size]


@pytest.mark.parametrize("n", range(1, 13))
def test_distribution_of_signed_ranks_is_that_of_all_signs(n):
    sums = [sum(itertools.compress(range(1, n + 1), signs)) for signs in itertools.product([0, 1], repeat=n)]
    np.testing.assert_allclose(stats.signed_rank_distribution(n), np.bincount(sums) / 2**n, rtol=1e-12)


class TestHodgesLehmann:
    def test_below_six_values_there_are_no_bounds_and_six_are_bounded_by_their_range(self):
        assert [stats.hodges_lehmann(np.arange(n)) for n in range(1, 6)] == [Interval((n - 1) / 2) for n in range(1, 6)]
        assert stats.hodges_lehmann([5, 1, 3, 9, 7, 2]) == Interval(4.5, 1.0, 9.0)

    @pytest.mark.parametrize("n", [6, 9, 15, 40])
    def test_interval_inverts_the_exact_test(self, n):
        """A shift inside the bounds is not rejected by scipy's exact test, one outside is."""
        x = np.random.default_rng(n).normal(size=n)
        interval = stats.hodges_lehmann(x)
        for bound, outwards in ((interval.low, -1e-9), (interval.high, 1e-9)):
            inside, outside = (
                scipy.stats.wilcoxon(x - bound + by, method="exact").pvalue for by in (outwards, -outwards)
            )
            assert outside <= 0.05 < inside

    def test_normal_approximation_meets_the_exact_ranks(self, monkeypatch):
        approximate = {n: stats.critical_rank(n) for n in (61, 80, 120)}
        monkeypatch.setattr(stats, "EXACT_UP_TO", 1000)
        stats.critical_rank.cache_clear()
        exact = {n: stats.critical_rank(n) for n in approximate}
        stats.critical_rank.cache_clear()
        assert all(abs(exact[n] - approximate[n]) <= 1 for n in exact)

    @pytest.mark.parametrize("n", [8, 20, 80])
    def test_coverage(self, n):
        draws = np.random.default_rng(7).standard_t(4, size=(2000, n))
        covered = sum(i.low <= 0 <= i.high for i in map(stats.hodges_lehmann, draws))
        assert 0.93 <= covered / len(draws) <= 0.97

    @given(samples, st.floats(-50, 50), st.sampled_from([-1, 1]))
    def test_moves_with_its_values_whatever_their_order(self, x, shift, sign):
        before, after = stats.hodges_lehmann(x), stats.hodges_lehmann(shift + sign * np.sort(x))
        assert after.estimate == pytest.approx(sign * before.estimate + shift, abs=1e-9)
        if before.low is not None:
            ends = sorted([sign * before.low + shift, sign * before.high + shift])
            assert [after.low, after.high] == pytest.approx(ends, abs=1e-9)
            assert min(x) <= before.low <= before.estimate <= before.high <= max(x)

    @pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf], [[1.0]]])
    def test_bad_samples_are_refused(self, bad):
        with pytest.raises(ValueError, match="a sample"):
            stats.hodges_lehmann(bad)


class TestStudent:
    @pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
    def test_quantile_is_scipys(self, confidence):
        freedom = [*range(1, 60), 199, 200, 201, 1.5, 7.25, 5000]
        found = [stats.student_quantile(each, confidence) for each in freedom]
        np.testing.assert_allclose(found, scipy.stats.t.ppf((1 + confidence) / 2, freedom), rtol=1e-11)

    @given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20))
    def test_intervals_are_the_textbooks_and_below_three_values_there_are_no_bounds(self, x):
        interval, mean = stats.t_interval(x), np.mean(x)
        assert interval.estimate == pytest.approx(mean, rel=1e-9, abs=1e-9)
        assert (interval.low is None) == (interval.high is None) == (len(x) < 3)
        if len(x) > 1:
            half = scipy.stats.t.ppf(0.975, len(x) - 1) * np.std(x, ddof=1)
        if interval.half is not None:
            assert interval.half == pytest.approx(half / math.sqrt(len(x)), rel=1e-9, abs=1e-9)

    def test_floor_widens_only_what_is_narrower(self):
        assert stats.t_interval([1, 1, 1], variance_floor=4.0) == stats.t_interval([-1, 1, 3]).holding(1.0)
        assert stats.t_interval([-1, 1, 3], variance_floor=0.1) == stats.t_interval([-1, 1, 3])

    @pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy's, where all values of a side are equal
    @given(sides, sides)
    def test_welchs_is_scipys_and_swapping_negates(self, x, y):
        there, back = stats.welch_interval(x, y), stats.welch_interval(y, x)
        assert there.estimate == pytest.approx(np.mean(y) - np.mean(x), abs=1e-12)
        assert (there.low is None) == (back.low is None) == (min(len(x), len(y)) < 3)
        if there.low is not None:
            assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
            if np.ptp(x) > 0.01:
                low, high = scipy.stats.ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
                assert (there.low, there.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)


def test_interval_on_the_ratio_scale():
    assert Interval(0.0, -math.log(2), math.log(2)).exp() == Interval(1.0, pytest.approx(0.5), pytest.approx(2.0))
    assert Interval(2.0, 1.0, math.e).log() == Interval(math.log(2), 0.0, 1.0)
    assert Interval(2.0, 1.0, 3.0).scaled(10) == Interval(20.0, 10.0, 30.0)
    assert Interval(2.0, 1.0, 3.0).holding(4.0) == Interval(4.0, 1.0, 4.0)
    assert Interval(0.0).exp() == Interval(1.0)
    assert Interval(1.0).holding(2.0) == Interval(2.0)
