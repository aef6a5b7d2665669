from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_session

from mnist_bench import stats
from mnist_bench.records import Round, Session
from mnist_bench.speedups import index_sessions
from mnist_bench.stats import Interval, SessionRatio

samples = st.lists(st.floats(-100, 100).map(lambda x: round(x, 6)), min_size=1, max_size=40)


def brute_force_signed_rank(n: int) -> np.ndarray:
    """The null distribution of the signed-rank statistic from all 2^n signs."""
    sums = [
        sum(r for r, sign in zip(range(1, n + 1), signs, strict=True) if sign)
        for signs in itertools.product([False, True], repeat=n)
    ]
    return np.bincount(sums, minlength=n * (n + 1) // 2 + 1) / 2**n


def rounds_ratio(session: Session) -> SessionRatio | None:
    return index_sessions([session]).ratio(session, "a", "b")


def round_of(*ms: float) -> Round:
    return Round(order=tuple(range(len(ms))), steps=(10,) * len(ms), seconds=tuple(one / 100 for one in ms))


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

    def test_shared_result_cannot_be_changed(self) -> None:
        with pytest.raises(ValueError, match="read-only"):
            stats.signed_rank_distribution(5)[0] = 1


class TestHodgesLehmann:
    def test_estimate_is_the_median_of_walsh_averages(self) -> None:
        x = [1.0, 2.0, 4.0, 8.0]
        walsh = [(x[i] + x[j]) / 2 for i in range(4) for j in range(i, 4)]
        assert stats.hodges_lehmann(x).estimate == float(np.median(walsh))

    @pytest.mark.parametrize("n", range(1, 6))
    def test_too_few_values_have_no_bounds(self, n: int) -> None:
        interval = stats.hodges_lehmann(np.arange(n))
        assert (interval.low, interval.high) == (None, None)

    def test_six_values_are_bounded_by_their_range(self) -> None:
        assert stats.hodges_lehmann([5, 1, 3, 9, 7, 2]) == Interval(4.5, 1.0, 9.0)

    @pytest.mark.parametrize("n", [6, 9, 15, 40])
    @pytest.mark.parametrize("confidence", [0.9, 0.95])
    def test_interval_inverts_the_exact_test(self, n: int, confidence: float) -> None:
        """A shift inside the bounds is not rejected by scipy's exact test, one outside is."""
        x = np.random.default_rng(n).normal(size=n)
        interval = stats.hodges_lehmann(x, confidence)
        assert interval.low is not None
        assert interval.high is not None
        for shift, rejected in [
            (interval.low - 1e-9, True),
            (interval.low + 1e-9, False),
            (interval.high - 1e-9, False),
            (interval.high + 1e-9, True),
        ]:
            p = scipy.stats.wilcoxon(x - shift, method="exact").pvalue
            assert bool(p <= 1 - confidence) is rejected

    def test_normal_approximation_meets_the_exact_ranks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        approximate = {n: stats._critical_rank(n, 0.95) for n in (61, 80, 120)}
        monkeypatch.setattr(stats, "EXACT_UP_TO", 1000)
        stats._critical_rank.cache_clear()
        exact = {n: stats._critical_rank(n, 0.95) for n in approximate}
        stats._critical_rank.cache_clear()
        assert all(abs(exact[n] - approximate[n]) <= 1 for n in exact)

    def test_thousand_values_are_quick(self) -> None:
        x = np.random.default_rng(0).normal(size=1000)
        started = time.perf_counter()
        stats.hodges_lehmann(x)
        assert time.perf_counter() - started < 2

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

    @pytest.mark.parametrize("confidence", [0, 1, 95])
    def test_bad_confidence_is_refused(self, confidence: float) -> None:
        with pytest.raises(ValueError, match="confidence"):
            stats.hodges_lehmann([1, 2, 3], confidence)

    def test_confidence_beyond_the_approximation_has_no_bounds(self) -> None:
        assert stats.hodges_lehmann(np.arange(61), 1 - 1e-16).low is None


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

    def test_normal_quantile(self) -> None:
        assert pytest.approx(scipy.stats.norm.ppf(0.975), rel=1e-12) == stats.NORMAL_QUANTILE


class TestRounds:
    def test_rounds_that_one_has_left_are_left_out(self) -> None:
        session = make_session(["a", "b"], [[2, 1], [3, 0], [0, 1], [8, 2]])
        np.testing.assert_allclose(stats.log_ratios(session, "a", "b"), np.log([2, 4]))
        np.testing.assert_allclose(stats.log_ratios(session, "b", "a"), -np.log([2, 4]))

    def test_seconds_are_per_step(self) -> None:
        rounds = [Round(order=(1, 0), steps=(5, 20), seconds=(1.0, 2.0))]
        np.testing.assert_allclose(stats.round_log_ratios(rounds, 0, 1), [math.log(2)])

    def test_no_rounds(self) -> None:
        assert stats.round_log_ratios([], 0, 1).size == 0
        assert rounds_ratio(make_session(["a", "b"], [[1, 0]])) is None

    def test_stranger_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not in"):
            stats.log_ratios(make_session(["a", "b"], [[1, 1]]), "a", "c")

    def test_estimate_of_a_session_is_the_median_over_rounds(self) -> None:
        ratios = [1.0, 1.1, 1.2, 1.3, 1.4, 9.0, 1.25]
        ratio = rounds_ratio(make_session(["a", "b"], [[r, 1] for r in ratios]))
        assert ratio is not None
        assert ratio.interval.estimate == pytest.approx(math.log(1.25))
        assert ratio.rounds == 7

    @given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
    def test_bounds_hold_the_median_even_if_skewed(self, x: list[float]) -> None:
        ratio = stats.ratio_of(np.exp(np.multiply(x, 5)))
        if ratio.interval.low is not None:
            assert ratio.interval.low <= ratio.interval.estimate <= ratio.interval.high

    @given(st.integers(0, 14), st.integers(1, 5), st.floats(0, 0.5), st.integers(0, 2**32 - 1))
    def test_many_pairs_at_once_are_the_same(self, rounds: int, pairs: int, missing: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        values = np.exp(rng.normal(size=(rounds, pairs)))
        values[rng.random(values.shape) < missing * rng.integers(0, 2, pairs)] = np.nan
        columns = [column[~np.isnan(column)] for column in values.T]
        assert stats.ratios_of(values) == [stats.ratio_of(column) if column.size else None for column in columns]

    def test_skewed_sample_is_stretched_to_its_median(self) -> None:
        x = [0.0] * 21 + [10.0] * 20
        plain = stats.hodges_lehmann(x)
        assert plain.low is not None
        assert plain.low > stats.median(x)
        assert stats.ratio_of(x).interval.low == stats.median(x) == 0.0

    def test_variance_is_near_the_true_one(self) -> None:
        ratios = [stats.ratio_of(x).variance for x in np.random.default_rng(1).normal(size=(300, 40))]
        assert np.mean(ratios) == pytest.approx(math.pi / 3 / 40, rel=0.15)

    def test_variance_of_few_rounds(self) -> None:
        assert stats.ratio_of([1.0]).variance is None
        assert stats.ratio_of([1.0, 3.0]).variance == pytest.approx(math.pi / 2)


class TestBetweenProcesses:
    def test_the_error_is_added_in_quadrature(self) -> None:
        one = SessionRatio(Interval(0.5, 0.47, 0.54), 20, 4e-4)
        wider = stats.between_processes(one, sd=0.03 / scipy.stats.norm.ppf(0.975))
        assert wider.interval == Interval(
            0.5, pytest.approx(0.5 - math.hypot(0.03, 0.03)), pytest.approx(0.5 + math.hypot(0.04, 0.03))
        )
        assert wider.variance == pytest.approx(4e-4 + (0.03 / scipy.stats.norm.ppf(0.975)) ** 2)

    def test_what_is_not_known_stays_unknown(self) -> None:
        assert stats.between_processes(SessionRatio(Interval(0.5), 1, None)) == SessionRatio(Interval(0.5), 1, None)

    def test_a_sessions_ratio_has_it_and_the_stopping_rule_has_not(self) -> None:
        session = make_session(["a", "b"], [[1.0, 1.0]] * 20)
        ratio = rounds_ratio(session)
        assert ratio is not None
        assert ratio.interval.high == pytest.approx(scipy.stats.norm.ppf(0.975) * stats.PROCESS_SD)
        assert stats.widest_half_width(session.rounds, [(0, 1)]) == 0.0

    def test_coverage_where_processes_differ(self) -> None:
        """One session a draw: rounds alone miss a shift of the whole session, the stated interval does not."""
        rng = np.random.default_rng(5)
        draws, narrow, stated = 600, 0, 0
        for _ in range(draws):
            alone = stats.ratio_of(rng.normal(rng.normal(0, stats.PROCESS_SD), 0.05, size=30))
            whole = stats.between_processes(alone).interval
            narrow += alone.interval.low <= 0 <= alone.interval.high
            stated += whole.low <= 0 <= whole.high
        assert narrow / draws < 0.85
        assert 0.93 <= stated / draws <= 0.98


class TestPooled:
    @staticmethod
    def session(median: float, variance: float | None) -> SessionRatio:
        return SessionRatio(Interval(median, median - 0.1, median + 0.1), 10, variance)

    def test_one_session_gives_its_own(self) -> None:
        one = self.session(0.5, 0.01)
        assert stats.pooled_ratio([one]) is one.interval

    def test_several_give_the_t_interval_over_sessions(self) -> None:
        medians = [0.1, 0.3, 0.2, 0.5]
        pooled = stats.pooled_ratio([self.session(m, 1e-9) for m in medians])
        assert pooled == stats.t_interval(medians)

    def test_two_that_agree_by_luck_are_not_narrow(self) -> None:
        pooled = stats.pooled_ratio([self.session(0.2, 0.01), self.session(0.2, None), self.session(0.2, 0.03)])
        half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(0.02 / 3)
        assert pooled.high == pytest.approx(0.2 + half)

    def test_two_have_one_degree_of_freedom(self) -> None:
        pooled = stats.pooled_ratio([self.session(0.0, None), self.session(0.2, None)])
        assert pooled.low == pytest.approx(0.1 - 12.7062 * 0.1, rel=1e-4)

    def test_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            stats.pooled_ratio([])

    def test_coverage_with_a_spread_between_sessions(self) -> None:
        rng = np.random.default_rng(0)
        covered, draws = 0, 600
        for _ in range(draws):
            centres = rng.normal(0, 0.02, size=3)
            pooled = stats.pooled_ratio([stats.ratio_of(rng.normal(c, 0.05, size=12)) for c in centres])
            covered += pooled.low <= 0 <= pooled.high
        assert covered / draws >= 0.93


class TestWidth:
    def test_relative_half_width(self) -> None:
        width = stats.ratio_half_width(Interval(math.log(3), math.log(2.94), math.log(3.06)))
        assert width == pytest.approx(0.02)
        assert stats.ratio_half_width(Interval(0.0)) is None

    def test_widest_pair_decides(self) -> None:
        rng = np.random.default_rng(0)
        rounds = [round_of(1.0, 1 + 0.01 * a, 1 + 0.1 * b) for a, b in rng.normal(size=(12, 2))]
        narrow, wide = stats.widest_half_width(rounds, [(0, 1)]), stats.widest_half_width(rounds, [(0, 2)])
        assert narrow is not None
        assert wide is not None
        assert narrow < wide == stats.widest_half_width(rounds, [(0, 1), (0, 2)])

    def test_unknown_pair_is_no_width(self) -> None:
        rounds = [round_of(1.0, 1.0, 1.0)] * 8
        left = [*rounds[:7], Round(order=(0, 1, 2), steps=(1, 1, 0), seconds=(1.0, 1.0, 0.0))]
        assert stats.widest_half_width(rounds, []) is None
        assert stats.widest_half_width(rounds[:5], [(0, 1)]) is None
        assert stats.widest_half_width([], [(0, 1)]) is None
        assert stats.widest_half_width(left[5:], [(0, 2)]) is None
        assert stats.widest_half_width(left, [(0, 1), (0, 2)]) == 0.0


def test_interval_on_the_ratio_scale() -> None:
    assert Interval(0.0, -math.log(2), math.log(2)).exp() == Interval(1.0, pytest.approx(0.5), pytest.approx(2.0))
    assert Interval(0.0).exp() == Interval(1.0)
    assert Interval(1.0).holding(2.0) == Interval(2.0)


@given(samples)
def test_percentiles(x: list[float]) -> None:
    low, middle, high = stats.percentiles(x, (0, 50, 100))
    assert (low, high) == (min(x), max(x))
    assert stats.median(x) == float(np.median(x)) == pytest.approx(middle)
