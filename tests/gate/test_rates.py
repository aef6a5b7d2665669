"""How often the gate is right: simulated checks, 4,000 a case, fixed seeds, no training.

What is claimed of a rate is claimed of its 95 % confidence bound, not of the count's own fraction: a rate of at most
1 % means that the upper bound is below 1 %. At the very edge of what is tolerated (a ratio of exactly 1.03) the true
rate is near 1 % by design, so that no number of draws puts its bound below: there the level is computed exactly, and
the draws must not contradict it.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from gate_kit import (
    MARGINS,
    Decisions,
    accuracy_decisions,
    checks,
    critical_rank_sum,
    pair_logs,
    rate_bounds,
    seed_accuracies,
    seed_pairs,
    speed_decisions,
    two_humped,
)

from mnist_bench import stats
from mnist_bench.gate import samples
from mnist_bench.gate.conduct import detectable

CHECKS = 4000
CELLS = (1, 20)
SDS = (0.02, 0.04, 0.06)
ERRORS = (0.01, 0.03, 0.10)  # cnn, lenet5 and mlp after an epoch or two


def at_most(rate: float, count: int, draws: int) -> bool:
    return rate_bounds(count, draws)[1] <= rate


def at_least(rate: float, count: int, draws: int) -> bool:
    return rate_bounds(count, draws)[0] >= rate


def not_above(rate: float, count: int, draws: int) -> bool:
    """Whether the draws do not contradict a rate of at most so much: fewer than 1 in 1,000 samples have more."""
    return count <= scipy.stats.binom.isf(0.001, draws, rate)


Claim = Callable[[Decisions, int], bool]  # of the decisions of all cells, and how many a check has


def alarms(holds: Callable[[float, int, int], bool], rate: float) -> Claim:
    """In how many checks of all a cell fails."""
    return lambda decisions, cells: holds(rate, checks(decisions, cells, "fail"), CHECKS)


def share(holds: Callable[[float, int, int], bool], rate: float, *kinds: str) -> Claim:
    """Of how many cells of all these are the decision."""
    return lambda decisions, cells: holds(rate, int(np.isin(decisions, kinds).sum()), decisions.size)


class TestSimulationIsTheGate:
    """The array path decides as the real functions do."""

    @pytest.mark.parametrize("cells", CELLS)
    def test_speed(self, cells):
        rng = np.random.default_rng(1)
        ratios = np.repeat([0.85, 1.0, 1.05, 1.08], 25)[:, np.newaxis]
        logs = np.log(ratios) + pair_logs(rng, (100, samples.looks(cells)[-1]), ratio=1.0, sd=0.07)
        found = [samples.find_speed(row.tolist(), cells) for row in logs]
        assert [one.decision for one in found if one] == list(speed_decisions(logs, cells))
        assert {one.decision for one in found if one} == {"fail", "pass", "improvement", "undecided"}

    @pytest.mark.parametrize("cells", CELLS)
    @pytest.mark.parametrize("error", ERRORS)
    def test_accuracy(self, cells, error):
        rng = np.random.default_rng(2)
        kinds = set()
        for drop, wider in ((0.0, 1.0), (0.0015, 1.0), (0.003, 1.0), (0.002, 3.0)):
            a, b = seed_accuracies(rng, (40, samples.SEED_LOOKS[-1]), error=error, drop=drop, wider=wider)
            found = [samples.find_accuracy(seed_pairs(x, y), cells) for x, y in zip(a, b, strict=True)]
            assert [one.decision for one in found if one] == list(accuracy_decisions(a, b, cells))
            kinds |= {one.decision for one in found if one}
        assert kinds >= {"fail", "pass"}


class TestSpeed:
    @pytest.mark.parametrize("cells", CELLS)
    @pytest.mark.parametrize(
        ("ratio", "sd", "claims"),
        [
            *((1.0, sd, (alarms(at_most, 0.01), share(at_least, 0.99, "pass"))) for sd in SDS),
            # Just tolerated: the case is at the edge, and the simulation can see it.
            *((1.03, sd, (alarms(not_above, MARGINS.alpha), alarms(at_least, 1e-9))) for sd in SDS),
            *(
                (1.10, sd, (share(at_least, found, "fail"), share(not_above, 0.01, "pass", "improvement")))
                for sd, found in zip(SDS, (0.99, 0.99, 0.97), strict=True)
            ),
        ],
    )
    def test_rates(self, cells, ratio, sd, claims):
        rng = np.random.default_rng([10, cells, round(1000 * sd), round(100 * ratio)])
        logs = pair_logs(rng, (CHECKS * cells, samples.looks(cells)[-1]), ratio=ratio, sd=sd)
        decisions = speed_decisions(logs, cells)
        assert [claim(decisions, cells) for claim in claims] == [True] * len(claims)

    @pytest.mark.parametrize("cells", [1, 2, 5, 20, 200, 10_000])
    def test_level_of_all_looks_is_kept_exactly(self, cells):
        """At a ratio of exactly 1.03: the chances of a false alarm at each look add up to no more than alpha / K."""
        alpha = samples.level(cells)
        tails = [stats.signed_rank_distribution(n)[critical_rank_sum(n, alpha) :] for n in samples.looks(cells)]
        chances = [float(tail.sum()) for tail in tails]
        assert 0.5 * MARGINS.alpha < cells * sum(chances) <= MARGINS.alpha

    @pytest.mark.parametrize("pairs", [9, 12, 16, 28, 48])
    @pytest.mark.parametrize("sd", SDS)
    def test_intervals_cover(self, pairs, sd):
        rng = np.random.default_rng([13, pairs, round(1000 * sd)])
        logs = pair_logs(rng, (CHECKS, pairs), ratio=1.07, sd=sd)
        intervals = [stats.hodges_lehmann(row) for row in logs]
        covered = sum((i.low or 0.0) <= math.log(1.07) <= (i.high or 0.0) for i in intervals)
        assert at_least(0.93, covered, CHECKS)
        assert at_most(0.97, covered, CHECKS)

    @pytest.mark.parametrize(("cells", "sd", "ratio"), [(1, 0.02, 1.1), (1, 0.06, 1.05), (20, 0.06, 1.05)])
    def test_intervals_hardly_suffer_from_early_decisions(self, cells, sd, ratio):
        """Over the pairs up to the look that decided: no longer exact, near it all the same."""
        logs = pair_logs(np.random.default_rng(15), (CHECKS, samples.looks(cells)[-1]), ratio=ratio, sd=sd)
        used = np.full(CHECKS, logs.shape[1])
        for look in reversed(samples.looks(cells)):
            used[speed_decisions(logs[:, :look], cells) != "undecided"] = look
        intervals = [stats.hodges_lehmann(row[:pairs]) for row, pairs in zip(logs, used, strict=True)]
        covered = sum((i.low or 0.0) <= math.log(ratio) <= (i.high or 0.0) for i in intervals)
        assert at_least(0.91, covered, CHECKS)
        assert at_most(0.975, covered, CHECKS)

    @pytest.mark.parametrize("sd", [0.015, 0.04])
    @pytest.mark.parametrize("cells", CELLS)
    def test_what_is_said_to_be_detectable_is_detected(self, cells, sd):
        """Without spikes, as ``detectable`` says: 0.9 within the draws' error and that of its own sample."""
        for look in samples.looks(cells):
            slow = detectable(look, cells, sd)
            noise = np.random.default_rng(14).normal(0, sd, (CHECKS, look))
            found = int((speed_decisions(math.log1p(slow) + noise, cells) == "fail").sum())
            assert at_least(0.87, found, CHECKS)
            assert at_most(0.93, found, CHECKS)


SELDOM_PASSES = share(at_most, MARGINS.drop_alpha, "pass")


class TestAccuracy:
    """Both sides' trainings spread by sqrt(err / 2n) (``wider`` = 1), or by three times as much as is assumed."""

    @pytest.mark.parametrize("cells", CELLS)
    @pytest.mark.parametrize(
        ("error", "drop", "wider", "claims"),
        [
            *((one, 0.0, 1.0, (alarms(at_most, MARGINS.drop_alpha), share(at_least, 0.99, "pass"))) for one in ERRORS),
            # Just tolerated, also where trainings spread more than is assumed.
            *((0.03, MARGINS.drop, wider, (alarms(not_above, MARGINS.drop_alpha),)) for wider in (1.0, 3.0)),
            *((one, MARGINS.drop_detect, 1.0, (share(at_least, 0.98, "fail"), SELDOM_PASSES)) for one in ERRORS),
            (0.03, MARGINS.drop_detect, 3.0, (share(not_above, MARGINS.drop_alpha, "pass"),)),
        ],
    )
    def test_rates(self, cells, error, drop, wider, claims):
        shape = (CHECKS * cells, samples.SEED_LOOKS[-1])
        rng = np.random.default_rng([30, cells, round(1e4 * error), round(1e4 * drop), round(wider)])
        decisions = accuracy_decisions(*seed_accuracies(rng, shape, error=error, drop=drop, wider=wider), cells)
        assert [claim(decisions, cells) for claim in claims] == [True] * len(claims)

    @pytest.mark.parametrize(("error", "mean"), [(0.01, 8), (0.03, 13), (0.10, 26)])
    def test_equal_recipes_pass_after_so_many_seeds_that_differ(self, error, mean):
        shape = (CHECKS, samples.SEED_LOOKS[-1])
        a, b = seed_accuracies(np.random.default_rng(32), shape, error=error, drop=0.0)
        used = np.full(CHECKS, shape[1])
        for look in reversed(samples.SEED_LOOKS):
            used[accuracy_decisions(a[:, :look], b[:, :look], 20) != "undecided"] = look
        assert used.mean() <= mean

    @pytest.mark.parametrize("cells", CELLS)
    @pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
    def test_trainings_that_may_end_on_a_plateau_hardly_ever_fail(self, cells, share):
        rng = np.random.default_rng([33, cells, round(10 * share)])
        a, b = (two_humped(rng, (CHECKS * cells, samples.SEED_LOOKS[-1]), share) for _ in "AB")
        assert not_above(MARGINS.drop_alpha, checks(accuracy_decisions(a, b, cells), cells, "fail"), CHECKS)

    def test_students_t_alone_would_cry_wolf_over_plateaus(self):
        """The control: 8 of 100 checks of 20 such cells."""
        a, b = (two_humped(np.random.default_rng(34 + n), (CHECKS * 20, samples.SEED_LOOKS[-1]), 0.5) for n in range(2))
        assert at_least(0.05, checks(accuracy_decisions(a, b, 20, humps=False), 20, "fail"), CHECKS)
