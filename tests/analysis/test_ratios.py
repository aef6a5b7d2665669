"""Rounds of sessions to ratios of code: what one session says, what several say, how often intervals are right."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from record_factory import make_session

from mnist_bench import stats
from mnist_bench.analysis import ratios
from mnist_bench.analysis.ratios import PROCESS_SD, SessionRatio, SpeedUp, ratio_of
from mnist_bench.records import Round, Session
from mnist_bench.stats import Interval

Z = scipy.stats.norm.ppf(0.975)
PAIR = [("a", "b")]


def of_pair(*sessions: Session, pairs: Sequence[tuple[str, str]] = PAIR) -> SpeedUp | None:
    return ratios.speed_up(pairs, ratios.SessionIndex(sessions))


def solo(name: str, *ms: float) -> Session:
    return make_session([name], [[one] for one in ms], paired=False)


class TestOneSession:
    def test_seconds_are_per_step_and_rounds_that_one_has_left_are_left_out(self):
        rounds = make_session(["a", "b"], [[2, 1], [3, 0], [0, 1], [8, 2]]).rounds
        np.testing.assert_allclose(ratios.round_log_ratios(rounds, 0, 1), np.log([2, 4]))
        np.testing.assert_allclose(ratios.round_log_ratios(rounds, 1, 0), -np.log([2, 4]))
        rounds = [Round(order=(1, 0), steps=(5, 20), seconds=(1.0, 2.0))]
        np.testing.assert_allclose(ratios.round_log_ratios(rounds, 0, 1), [math.log(2)])
        assert ratios.round_log_ratios([], 0, 1).size == 0

    @given(st.integers(0, 14), st.integers(1, 5), st.floats(0, 0.5), st.integers(0, 2**32 - 1))
    def test_many_pairs_at_once_are_each_by_itself(self, rounds, pairs, missing, seed):
        rng = np.random.default_rng(seed)
        step_s = np.exp(rng.normal(size=(rounds, pairs + 1)))
        step_s[rng.random(step_s.shape) < missing * rng.integers(0, 2, pairs + 1)] = np.nan
        logs = [np.log(step_s[:, 0]) - np.log(step_s[:, one + 1]) for one in range(pairs)]
        known = [column[~np.isnan(column)] for column in logs]
        found = ratios.ratios_of(ratios.log_ratios(step_s, [(0, one + 1) for one in range(pairs)]))
        assert found == [ratio_of(column) if column.size else None for column in known]

    @given(st.lists(st.floats(-1, 1).map(lambda x: math.exp(5 * x)), min_size=1, max_size=30))
    def test_median_with_the_interval_of_hodges_and_lehmann_stretched_to_it(self, x):
        found, plain = ratio_of(x), stats.hodges_lehmann(x)
        assert (found.interval, found.rounds) == (plain.holding(stats.median(x)), len(x))
        if found.interval.half is not None:
            assert found.variance == pytest.approx((found.interval.half / Z) ** 2)

    def test_variance_is_near_the_true_one(self):
        found = [ratio_of(x).variance for x in np.random.default_rng(1).normal(size=(300, 40))]
        assert np.mean(found) == pytest.approx(math.pi / 3 / 40, rel=0.15)
        assert ratio_of([1.0]).variance is None
        assert ratio_of([1.0, 3.0]).variance == pytest.approx(math.pi / 2)


class TestBetweenProcesses:
    def test_the_error_is_added_in_quadrature(self):
        wider = ratios.between_processes(SessionRatio(Interval(0.5, 0.47, 0.54), 20, 4e-4), sd=0.03 / Z)
        low, high = 0.5 - math.hypot(0.03, 0.03), 0.5 + math.hypot(0.04, 0.03)
        assert wider.interval == Interval(0.5, pytest.approx(low), pytest.approx(high))
        assert wider.variance == pytest.approx(4e-4 + (0.03 / Z) ** 2)
        unknown = SessionRatio(Interval(0.5), 1, None)
        assert ratios.between_processes(unknown) == unknown

    def test_coverage_where_processes_differ(self):
        """One session a draw: rounds alone miss a shift of the whole session, the stated interval does not."""
        rng = np.random.default_rng(5)
        draws, narrow, stated = 600, 0, 0
        for _ in range(draws):
            alone = ratio_of(rng.normal(rng.normal(0, PROCESS_SD), 0.05, size=30))
            whole = ratios.between_processes(alone).interval
            narrow += alone.interval.low <= 0 <= alone.interval.high
            stated += whole.low <= 0 <= whole.high
        assert narrow / draws < 0.85
        assert 0.93 <= stated / draws <= 0.98


class TestPooled:
    @staticmethod
    def session(median: float, variance: float | None) -> SessionRatio:
        return SessionRatio(Interval(median, median - 0.1, median + 0.1), 10, variance)

    def test_one_gives_its_own_and_several_the_t_interval_over_them(self):
        one = self.session(0.5, 0.01)
        assert ratios.pooled_ratio([one]) is one.interval
        medians = [0.1, 0.3, 0.2, 0.5]
        assert ratios.pooled_ratio([self.session(m, 1e-9) for m in medians]) == stats.t_interval(medians)
        two = ratios.pooled_ratio([self.session(0.0, None), self.session(0.2, None)])
        assert two.low == pytest.approx(0.1 - 12.7062 * 0.1, rel=1e-4)

    def test_those_that_agree_by_luck_are_not_narrow(self):
        pooled = ratios.pooled_ratio([self.session(0.2, 0.01), self.session(0.2, None), self.session(0.2, 0.03)])
        assert pooled.high == pytest.approx(0.2 + scipy.stats.t.ppf(0.975, 2) * math.sqrt(0.02 / 3))

    def test_coverage_with_a_spread_between_sessions(self):
        rng, covered, draws = np.random.default_rng(0), 0, 600
        for _ in range(draws):
            pooled = ratios.pooled_ratio([ratio_of(rng.normal(c, 0.05, size=12)) for c in rng.normal(0, 0.02, size=3)])
            covered += pooled.low <= 0 <= pooled.high
        assert covered / draws >= 0.93


class TestStoppingRule:
    @staticmethod
    def rounds(*ms: Sequence[float]) -> tuple[Round, ...]:
        return make_session(["a", "b", "c"], ms).rounds

    def test_is_relative_over_rounds_alone_and_the_widest_pair_decides(self):
        noise = np.random.default_rng(0).normal(size=(12, 2))
        rounds = self.rounds(*((1.0, 1 + 0.01 * a, 1 + 0.1 * b) for a, b in noise))
        of_pairs = ([(0, 1)], [(0, 2)], [(0, 2), (0, 1)])
        narrow, wide, both = (ratios.widest_half_width(rounds, pairs) for pairs in of_pairs)
        assert narrow < wide == both
        ratio = ratio_of(ratios.round_log_ratios(rounds, 0, 1)).interval.exp()
        assert narrow == pytest.approx(ratio.half / ratio.estimate)

    def test_unknown_pair_is_no_width(self):
        left = self.rounds(*[(1.0, 1.0, 1.0)] * 7, (1.0, 1.0, 0))
        assert ratios.widest_half_width(left, []) is None
        assert ratios.widest_half_width(left[:5], [(0, 1)]) is None
        assert ratios.widest_half_width(left[2:], [(0, 1), (0, 2)]) is None
        assert ratios.widest_half_width(left[7:], [(0, 2)]) is None
        assert ratios.widest_half_width(left, [(0, 1), (0, 2)]) == 0.0


class TestSpeedUps:
    def test_one_session_is_within_several_are_between(self):
        rows = [[2.0 * (1 + n / 1000), 1.0] for n in range(-5, 6)]
        session, again = make_session(["a", "b"], rows), make_session(["c", "d"], [[2.1, 1.0]] * 8)
        within, between = of_pair(session), of_pair(session, again, pairs=[*PAIR, ("c", "d")])
        expected = ratios.between_processes(ratio_of([math.log(slow / fast) for slow, fast in rows])).interval.exp()
        assert (within.paired, within.interval.estimate) == ("within", pytest.approx(2.0))
        assert (within.interval.low, within.interval.high) == pytest.approx((expected.low, expected.high))
        assert (between.paired, between.interval.estimate) == ("between", pytest.approx(math.sqrt(2 * 2.1)))

    def test_sessions_apart_are_unpaired_seed_by_seed(self):
        pairs = [(f"a{n}", f"b{n}") for n in range(3)]
        apart = [solo(a, 4.0, 4.4, 400) for a, _ in pairs]
        apart += [solo(b, ms) for (_, b), ms in zip(pairs, (2.2, 2.2, 2.0), strict=True)]
        found, two = of_pair(*apart, pairs=pairs), of_pair(*apart, pairs=pairs[:2])
        expected = stats.t_interval([math.log(2), math.log(2), math.log(2.2)]).exp()
        assert found.paired == "unpaired"
        assert (found.interval.estimate, found.interval.high) == pytest.approx((expected.estimate, expected.high))
        assert two.interval == Interval(pytest.approx(2.0))

    def test_a_trial_of_several_sessions_has_their_median(self):
        sessions = [solo("a", 1.0, 3.0), solo("a", 4.0), make_session(["a", "b"], [[8.0, 0.0]], paired=False)]
        index = ratios.SessionIndex(sessions)
        assert [index.log_step_s.get(name) for name in "abc"] == [pytest.approx(math.log(0.004)), None, None]

    def test_members_of_an_unpaired_session_are_unpaired(self):
        found = of_pair(make_session(["a", "b"], [[3.0, 1.0]], paired=False))
        assert found == SpeedUp(Interval(pytest.approx(3.0)), "unpaired")

    @pytest.mark.parametrize("sessions", [[], [solo("a", 1.0)], [make_session(["a", "b"], [[1.0, 0]])]])
    def test_never_timed_is_no_ratio(self, sessions):
        assert of_pair(*sessions) is None

    @pytest.mark.parametrize(
        ("low", "high", "shown"),
        [(1.01, 1.2, "faster"), (0.8, 0.99, "slower"), (1.0, 1.2, ""), (0.9, 1.0, ""), (None, None, "")],
    )
    def test_what_an_interval_shows(self, low, high, shown):
        assert SpeedUp(Interval(1.0, low, high), "within").shown == shown
