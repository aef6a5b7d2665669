from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_session

from mnist_bench import stats
from mnist_bench.records import Round, Session
from mnist_bench.session_ratios import (
    PROCESS_SD,
    SessionRatio,
    between_processes,
    log_ratios,
    pooled_ratio,
    ratio_half_width,
    ratio_of,
    ratios_of,
    round_log_ratios,
    widest_half_width,
)
from mnist_bench.speedups import index_sessions
from mnist_bench.stats import Interval


def rounds_ratio(session: Session) -> SessionRatio | None:
    return index_sessions([session]).ratio(session, "a", "b")


def round_of(*ms: float) -> Round:
    return Round(order=tuple(range(len(ms))), steps=(10,) * len(ms), seconds=tuple(one / 100 for one in ms))


class TestRounds:
    def test_rounds_that_one_has_left_are_left_out(self) -> None:
        session = make_session(["a", "b"], [[2, 1], [3, 0], [0, 1], [8, 2]])
        np.testing.assert_allclose(log_ratios(session, "a", "b"), np.log([2, 4]))
        np.testing.assert_allclose(log_ratios(session, "b", "a"), -np.log([2, 4]))

    def test_seconds_are_per_step(self) -> None:
        rounds = [Round(order=(1, 0), steps=(5, 20), seconds=(1.0, 2.0))]
        np.testing.assert_allclose(round_log_ratios(rounds, 0, 1), [math.log(2)])

    def test_no_rounds(self) -> None:
        assert round_log_ratios([], 0, 1).size == 0
        assert rounds_ratio(make_session(["a", "b"], [[1, 0]])) is None

    def test_stranger_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not in"):
            log_ratios(make_session(["a", "b"], [[1, 1]]), "a", "c")

    def test_estimate_of_a_session_is_the_median_over_rounds(self) -> None:
        ratios = [1.0, 1.1, 1.2, 1.3, 1.4, 9.0, 1.25]
        ratio = rounds_ratio(make_session(["a", "b"], [[r, 1] for r in ratios]))
        assert ratio is not None
        assert ratio.interval.estimate == pytest.approx(math.log(1.25))
        assert ratio.rounds == 7

    @given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
    def test_bounds_hold_the_median_even_if_skewed(self, x: list[float]) -> None:
        ratio = ratio_of(np.exp(np.multiply(x, 5)))
        if ratio.interval.low is not None:
            assert ratio.interval.low <= ratio.interval.estimate <= ratio.interval.high

    @given(st.integers(0, 14), st.integers(1, 5), st.floats(0, 0.5), st.integers(0, 2**32 - 1))
    def test_many_pairs_at_once_are_the_same(self, rounds: int, pairs: int, missing: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        values = np.exp(rng.normal(size=(rounds, pairs)))
        values[rng.random(values.shape) < missing * rng.integers(0, 2, pairs)] = np.nan
        columns = [column[~np.isnan(column)] for column in values.T]
        assert ratios_of(values) == [ratio_of(column) if column.size else None for column in columns]

    def test_skewed_sample_is_stretched_to_its_median(self) -> None:
        x = [0.0] * 21 + [10.0] * 20
        plain = stats.hodges_lehmann(x)
        assert plain.low is not None
        assert plain.low > stats.median(x)
        assert ratio_of(x).interval.low == stats.median(x) == 0.0

    def test_variance_is_near_the_true_one(self) -> None:
        ratios = [ratio_of(x).variance for x in np.random.default_rng(1).normal(size=(300, 40))]
        assert np.mean(ratios) == pytest.approx(math.pi / 3 / 40, rel=0.15)

    def test_variance_of_few_rounds(self) -> None:
        assert ratio_of([1.0]).variance is None
        assert ratio_of([1.0, 3.0]).variance == pytest.approx(math.pi / 2)


class TestBetweenProcesses:
    def test_the_error_is_added_in_quadrature(self) -> None:
        one = SessionRatio(Interval(0.5, 0.47, 0.54), 20, 4e-4)
        wider = between_processes(one, sd=0.03 / scipy.stats.norm.ppf(0.975))
        assert wider.interval == Interval(
            0.5, pytest.approx(0.5 - math.hypot(0.03, 0.03)), pytest.approx(0.5 + math.hypot(0.04, 0.03))
        )
        assert wider.variance == pytest.approx(4e-4 + (0.03 / scipy.stats.norm.ppf(0.975)) ** 2)

    def test_what_is_not_known_stays_unknown(self) -> None:
        assert between_processes(SessionRatio(Interval(0.5), 1, None)) == SessionRatio(Interval(0.5), 1, None)

    def test_a_sessions_ratio_has_it_and_the_stopping_rule_has_not(self) -> None:
        session = make_session(["a", "b"], [[1.0, 1.0]] * 20)
        ratio = rounds_ratio(session)
        assert ratio is not None
        assert ratio.interval.high == pytest.approx(scipy.stats.norm.ppf(0.975) * PROCESS_SD)
        assert widest_half_width(session.rounds, [(0, 1)]) == 0.0

    def test_coverage_where_processes_differ(self) -> None:
        """One session a draw: rounds alone miss a shift of the whole session, the stated interval does not."""
        rng = np.random.default_rng(5)
        draws, narrow, stated = 600, 0, 0
        for _ in range(draws):
            alone = ratio_of(rng.normal(rng.normal(0, PROCESS_SD), 0.05, size=30))
            whole = between_processes(alone).interval
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
        assert pooled_ratio([one]) is one.interval

    def test_several_give_the_t_interval_over_sessions(self) -> None:
        medians = [0.1, 0.3, 0.2, 0.5]
        pooled = pooled_ratio([self.session(m, 1e-9) for m in medians])
        assert pooled == stats.t_interval(medians)

    def test_two_that_agree_by_luck_are_not_narrow(self) -> None:
        pooled = pooled_ratio([self.session(0.2, 0.01), self.session(0.2, None), self.session(0.2, 0.03)])
        half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(0.02 / 3)
        assert pooled.high == pytest.approx(0.2 + half)

    def test_two_have_one_degree_of_freedom(self) -> None:
        pooled = pooled_ratio([self.session(0.0, None), self.session(0.2, None)])
        assert pooled.low == pytest.approx(0.1 - 12.7062 * 0.1, rel=1e-4)

    def test_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            pooled_ratio([])

    def test_coverage_with_a_spread_between_sessions(self) -> None:
        rng = np.random.default_rng(0)
        covered, draws = 0, 600
        for _ in range(draws):
            centres = rng.normal(0, 0.02, size=3)
            pooled = pooled_ratio([ratio_of(rng.normal(c, 0.05, size=12)) for c in centres])
            covered += pooled.low <= 0 <= pooled.high
        assert covered / draws >= 0.93


class TestWidth:
    def test_relative_half_width(self) -> None:
        width = ratio_half_width(Interval(math.log(3), math.log(2.94), math.log(3.06)))
        assert width == pytest.approx(0.02)
        assert ratio_half_width(Interval(0.0)) is None

    def test_widest_pair_decides(self) -> None:
        rng = np.random.default_rng(0)
        rounds = [round_of(1.0, 1 + 0.01 * a, 1 + 0.1 * b) for a, b in rng.normal(size=(12, 2))]
        narrow, wide = (
            widest_half_width(rounds, [(0, 1)]),
            widest_half_width(rounds, [(0, 2)]),
        )
        assert narrow is not None
        assert wide is not None
        assert narrow < wide == widest_half_width(rounds, [(0, 1), (0, 2)])

    def test_unknown_pair_is_no_width(self) -> None:
        rounds = [round_of(1.0, 1.0, 1.0)] * 8
        left = [*rounds[:7], Round(order=(0, 1, 2), steps=(1, 1, 0), seconds=(1.0, 1.0, 0.0))]
        assert widest_half_width(rounds, []) is None
        assert widest_half_width(rounds[:5], [(0, 1)]) is None
        assert widest_half_width([], [(0, 1)]) is None
        assert widest_half_width(left[5:], [(0, 2)]) is None
        assert widest_half_width(left, [(0, 1), (0, 2)]) == 0.0
