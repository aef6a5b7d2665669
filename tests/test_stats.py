from __future__ import annotations

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


def brute_force_signed_rank(n: int) -> np.ndarray:
    """The null distribution of the signed-rank statistic from all 2^n signs."""
    sums = [
        sum(r for r, sign in zip(range(1, n + 1), signs, strict=True) if sign)
        for signs in itertools.product([False, True], repeat=n)
    ]
    return np.bincount(sums, minlength=n * (n + 1) // 2 + 1) / 2**n


@given(st.lists(st.lists(st.floats(-9, 9) | st.just(math.nan), min_size=3, max_size=3), max_size=9))
def test_medians_of_columns_are_numpys(rows: list[list[float]]) -> None:
    columns = np.array(rows).reshape(-1, 3)
    expected = [np.median(known) if (known := column[~np.isnan(column)]).size else math.nan for column in columns.T]
    np.testing.assert_array_equal(stats.medians(columns), expected)


class TestSignedRank:
    @pytest.mark.parametrize("n", range(1, 13))
    def test_distribution_is_that_of_all_signs(self, n: int) -> None:
        np.testing.assert_allclose(stats.signed_rank_distribution(n), brute_force_signed_rank(n), rtol=1e-12)

    @pytest.mark.parametrize("n", [6, 10, 20, 60])
    def test_tail_is_that_of_scipy(self, n: int) -> None:
        rng = np.random.default_rng(n)
        x = rng.normal(0.3, 1, n)
        ranks = scipy.stats.rankdata(np.abs(x))
        statistic = int(ranks[x > 0].sum())
        tail = stats.signed_rank_distribution(n)[statistic:].sum()
        assert tail == pytest.approx(scipy.stats.wilcoxon(x, alternative="greater", method="exact").pvalue, rel=1e-9)


class TestHodgesLehmann:
    @pytest.mark.parametrize("n", range(1, 6))
    def test_too_few_values_have_no_bounds(self, n: int) -> None:
        interval = stats.hodges_lehmann(np.arange(n))
        assert (interval.low, interval.high) == (None, None)

    def test_six_values_are_bounded_by_their_range(self) -> None:
        assert stats.hodges_lehmann([5, 1, 3, 9, 7, 2]) == Interval(4.5, 1.0, 9.0)

    @pytest.mark.parametrize("n", [6, 9, 15, 40])
    def test_interval_inverts_the_exact_test(self, n: int) -> None:
        """A shift inside the bounds is not rejected by scipy's exact test, one outside is."""
        x = np.random.default_rng(n).normal(size=n)
        interval = stats.hodges_lehmann(x)
        assert interval.low is not None
        assert interval.high is not None
        for shift, rejected in [
            (interval.low - 1e-9, True),
            (interval.low + 1e-9, False),
            (interval.high - 1e-9, False),
            (interval.high + 1e-9, True),
        ]:
            p = scipy.stats.wilcoxon(x - shift, method="exact").pvalue
            assert bool(p <= 0.05) is rejected

    def test_normal_approximation_meets_the_exact_ranks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        approximate = {n: stats.critical_rank(n) for n in (61, 80, 120)}
        monkeypatch.setattr(stats, "EXACT_UP_TO", 1000)
        stats.critical_rank.cache_clear()
        exact = {n: stats.critical_rank(n) for n in approximate}
        stats.critical_rank.cache_clear()
        assert all(abs(exact[n] - approximate[n]) <= 1 for n in exact)

    @pytest.mark.parametrize("n", [8, 20, 80])
    def test_coverage(self, n: int) -> None:
        rng = np.random.default_rng(7)
        draws = 2000
        intervals = [stats.hodges_lehmann(x) for x in rng.standard_t(4, size=(draws, n))]
        covered = sum(i.low <= 0 <= i.high for i in intervals)
        assert 0.93 <= covered / draws <= 0.97

    @given(samples, st.floats(-50, 50))
    def test_shift_moves_everything(self, x: list[float], shift: float) -> None:
        before, after = stats.hodges_lehmann(x), stats.hodges_lehmann(np.add(x, shift))
        assert after.estimate == pytest.approx(before.estimate + shift, abs=1e-9)
        if before.low is not None:
            assert after.low == pytest.approx(before.low + shift, abs=1e-9)
            assert after.high == pytest.approx(before.high + shift, abs=1e-9)

    @given(samples)
    def test_sign_mirrors_everything(self, x: list[float]) -> None:
        before, after = stats.hodges_lehmann(x), stats.hodges_lehmann(np.negative(x))
        assert after.estimate == pytest.approx(-before.estimate, abs=1e-12)
        if before.low is not None:
            assert (after.low, after.high) == (-before.high, -before.low)

    @given(samples)
    def test_order_of_values_and_bounds(self, x: list[float]) -> None:
        interval = stats.hodges_lehmann(x)
        assert interval == stats.hodges_lehmann(sorted(x))
        if interval.low is not None:
            assert min(x) <= interval.low <= interval.estimate <= interval.high <= max(x)

    @pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf], [[1.0]]])
    def test_bad_samples_are_refused(self, bad: list[float]) -> None:
        with pytest.raises(ValueError, match="a sample"):
            stats.hodges_lehmann(bad)


class TestT:
    @given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=20))
    def test_is_that_of_scipy(self, x: list[float]) -> None:
        interval = stats.t_interval(x)
        sem = float(np.std(x, ddof=1)) / math.sqrt(len(x))
        half = scipy.stats.t.ppf(0.975, len(x) - 1) * sem
        assert interval.low == pytest.approx(np.mean(x) - half, rel=1e-9, abs=1e-9)
        assert interval.high == pytest.approx(np.mean(x) + half, rel=1e-9, abs=1e-9)

    @pytest.mark.parametrize("x", [[4.0], [4.0, 6.0]])
    def test_below_three_values_there_are_no_bounds(self, x: list[float]) -> None:
        assert stats.t_interval(x) == Interval(sum(x) / len(x))

    def test_floor_widens_only_what_is_narrower(self) -> None:
        assert stats.t_interval([1, 1, 1], variance_floor=4.0) == stats.t_interval([-1, 1, 3]).holding(1.0)
        assert stats.t_interval([-1, 1, 3], variance_floor=0.1) == stats.t_interval([-1, 1, 3])

    @pytest.mark.parametrize("n", [3, 10])
    def test_coverage(self, n: int) -> None:
        draws = 3000
        intervals = [stats.t_interval(x) for x in np.random.default_rng(3).normal(size=(draws, n))]
        covered = sum(i.low <= 0 <= i.high for i in intervals)
        assert 0.93 <= covered / draws <= 0.97


class TestStudentQuantile:
    @pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
    def test_is_scipys(self, confidence: float) -> None:
        freedom = [*range(1, 60), 199, 200, 201, 1.5, 7.25, 5000]
        found = [stats.student_quantile(each, confidence) for each in freedom]
        np.testing.assert_allclose(found, scipy.stats.t.ppf((1 + confidence) / 2, freedom), rtol=1e-11)


sides = st.lists(st.floats(-3, 3), min_size=1, max_size=8)


class TestWelch:
    @given(sides, sides)
    def test_swapping_negates_and_below_three_values_there_are_no_bounds(self, x: list[float], y: list[float]) -> None:
        there, back = stats.welch_interval(x, y), stats.welch_interval(y, x)
        assert there.estimate == pytest.approx(np.mean(y) - np.mean(x), abs=1e-12)
        assert back.estimate == pytest.approx(-there.estimate)
        assert (there.low is None) == (back.low is None) == (min(len(x), len(y)) < 3)
        if there.low is not None:
            assert (back.low, back.high) == pytest.approx((-there.high, -there.low))

    @pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy's, where all values of a side are equal
    @given(sides.filter(lambda x: len(x) > 2 and np.ptp(x) > 0.01), sides.filter(lambda x: len(x) > 2))
    def test_is_scipys(self, x: list[float], y: list[float]) -> None:
        found = stats.welch_interval(x, y)
        low, high = scipy.stats.ttest_ind(y, x, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)


class TestPrediction:
    @given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
    def test_is_the_textbooks(self, x: list[float]) -> None:
        half = scipy.stats.t.ppf(0.975, len(x) - 1) * np.std(x, ddof=1) * math.sqrt(1 + 1 / len(x))
        expected = (np.mean(x) - half, np.mean(x) + half)
        assert stats.prediction_interval(x) == pytest.approx(expected, rel=1e-9, abs=1e-9)

    @pytest.mark.parametrize("n", [2, 5])
    def test_holds_one_more_value_as_often_as_it_says(self, n: int) -> None:
        values = np.random.default_rng(2).normal(size=(2000, n + 1))
        intervals = [stats.prediction_interval(row[:n]) for row in values]
        held = sum(low <= row[n] <= high for (low, high), row in zip(intervals, values, strict=True))
        assert 0.935 <= held / len(values) <= 0.965


class TestMeanOfIntervals:
    def test_independent_errors_add_in_squares(self) -> None:
        found = stats.mean_of_intervals([Interval(1.0, 0.7, 1.3), Interval(4.0, 3.6, 4.4), Interval(1.0, 1.0, 1.0)])
        assert found == Interval(2.0, pytest.approx(2 - 0.5 / 3), pytest.approx(2 + 0.5 / 3))

    def test_none_where_one_has_none(self) -> None:
        assert stats.mean_of_intervals([Interval(1.0, 0.5, 1.5), Interval(2.0)]) == Interval(1.5)

    def test_covers_the_truth(self) -> None:
        """Cells of 4 seeds each: the interval of their mean holds the mean of the truths about as often as it says."""
        rng, held = np.random.default_rng(3), 0
        for _ in range(1000):
            truth = rng.normal(0.3, 0.2, 6)
            held_by = stats.mean_of_intervals([stats.t_interval(t + rng.normal(0, 0.03, 4)) for t in truth])
            held += held_by.low <= truth.mean() <= held_by.high
        assert held / 1000 > 0.95


def test_interval_on_the_ratio_scale() -> None:
    assert Interval(0.0, -math.log(2), math.log(2)).exp() == Interval(1.0, pytest.approx(0.5), pytest.approx(2.0))
    assert Interval(0.0).exp() == Interval(1.0)
    assert Interval(1.0).holding(2.0) == Interval(2.0)
    assert Interval(2.0, 1.0, 3.0).holding(4.0) == Interval(4.0, 1.0, 4.0)
    assert Interval(2.0, 1.0, math.e).log() == Interval(math.log(2), 0.0, 1.0)
    assert Interval(2.0, 1.0, 3.0).scaled(10) == Interval(20.0, 10.0, 30.0)


@given(samples)
def test_median_is_numpys(x: list[float]) -> None:
    assert stats.median(x) == float(np.median(x))
