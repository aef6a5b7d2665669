"""How often the gate is right: simulated checks, 4,000 a case, fixed seeds, no training.

What is claimed of a rate is claimed of its 95 % confidence bound, not of the count's own fraction: a rate of at most
1 % means that the upper bound is below 1 %. At the very edge of what is tolerated (a ratio of exactly 1.03) the true
rate is near 1 % by design, so that no number of draws puts its bound below: there the level is computed exactly, and
the draws must not contradict it.

``speed_decisions`` and ``accuracy_decisions`` are ``find_speed`` and ``find_accuracy`` over arrays.

Pairs: ln(time B / time A) = ln(true ratio) + normal noise; with a chance of 5 % a pair is thrown off by another 20 to
30 %, either way alike. (Something else used the machine while one side had the token: which side is chance.)
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from gate_kit import IMAGES, pair, seed_pairs
from numpy.typing import NDArray

from mnist_bench import stats
from mnist_bench.gate import samples
from mnist_bench.gate.conduct import detectable
from mnist_bench.gate.evidence import Margins

MARGINS = Margins()
MEMORY = Margins(margin=0.10, detect=0.20)  # what ``memory: 0.10`` asks of peaks
NARROW, NARROWEST = Margins(margin=0.0, detect=0.03), Margins(margin=0.0, detect=0.01)
CHECKS = 4000
CELLS = (1, 20)
SDS = (0.02, 0.04, 0.06)
ERRORS = (0.01, 0.03, 0.10)  # cnn, lenet5 and mlp after an epoch or two

Array = NDArray[np.float64]
Decisions = NDArray[np.str_]


# ── simulation ───────────────────────────────────────────────────────────────────────────────────────────────────────


def pair_logs(rng: np.random.Generator, shape: tuple[int, ...], *, ratio: float, sd: float) -> Array:
    """ln(time B / time A) of process pairs."""
    spikes = rng.uniform(0.2, 0.3, size=shape) * rng.choice((-1.0, 1.0), size=shape) * (rng.random(shape) < 0.05)
    return np.log(ratio) + rng.normal(0, sd, shape) + spikes


def seed_accuracies(
    rng: np.random.Generator, shape: tuple[int, ...], *, error: float, drop: float, wider: float = 1.0
) -> tuple[Array, Array]:
    """Accuracies of A and B, whole numbers of images; their spread is ``wider`` times sqrt(err / 2n)."""
    sides = []
    for expected in (error, error + drop):
        accuracies = rng.normal(1 - expected, wider * np.sqrt(expected / (2 * IMAGES)), shape)
        sides.append(np.round(accuracies * IMAGES) / IMAGES)
    return sides[0], sides[1]


def two_humped(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> Array:
    """Accuracies of trainings of which a share ends on a plateau."""
    means = np.where(rng.random(shape) < share, 0.21, 0.92)
    return np.round(rng.normal(means, np.sqrt((1 - means) / (2 * IMAGES))) * IMAGES) / IMAGES


def critical_rank_sum(pairs: int, alpha: float) -> int:
    """The smallest sum of positive ranks that the one-sided exact test rejects."""
    tails = np.cumsum(stats.signed_rank_distribution(pairs)[::-1])  # P(T >= largest), P(T >= largest - 1), ...
    return tails.size - int(np.searchsorted(tails, alpha * (1 + 1e-12), side="right"))


def speed_decisions(logs: Array, cells: int, margins: Margins = MARGINS) -> Decisions:
    """The decision of each row of pairs (rows, pairs)."""
    margin, detect = np.log1p(margins.margin), np.log1p(margins.detect)
    decided = np.full(logs.shape[0], "undecided", dtype="<U11")
    for look, alpha in samples.looks(cells, margins).items():
        if look > logs.shape[1]:
            break
        undecided = np.flatnonzero(decided == "undecided")
        x, critical = logs[undecided, :look], critical_rank_sum(look, alpha)
        found = np.full(undecided.size, "undecided", dtype="<U11")
        found[_rank_sums(detect - x) >= critical] = "pass"
        found[_rank_sums(-detect - x) >= critical] = "improvement"
        found[_rank_sums(x - margin) >= critical] = "fail"
        decided[undecided] = found
    return decided


def accuracy_decisions(a: Array, b: Array, cells: int, *, humps: bool = True) -> Decisions:
    """The decision of each row of seeds (rows, seeds) of which no predictions are equal.

    Args:
        humps: False: Student's t alone fails a cell.
    """
    decided = np.full(a.shape[0], "undecided", dtype="<U11")
    fail, passes = samples.drop_level(cells, MARGINS), samples.drop_level(1, MARGINS)
    for look in samples.SEED_LOOKS:
        if look > a.shape[1]:
            break
        undecided = np.flatnonzero(decided == "undecided")
        x, y = a[undecided, :look], b[undecided, :look]
        change, error = (y - x).mean(axis=1), np.sqrt(_variance(x, y) / look)
        found = np.full(undecided.size, "undecided", dtype="<U11")
        found[MARGINS.drop_detect + change >= scipy.stats.t.isf(passes, look - 1) * error] = "pass"
        if not humps or 0.25**look <= fail:
            found[-change - MARGINS.drop >= scipy.stats.t.isf(fail, look - 1) * error] = "fail"
        decided[undecided] = found
    return decided


def _variance(a: Array, b: Array) -> Array:
    errors = [np.maximum(1 - each.mean(axis=1), 1 / IMAGES) for each in (a, b)]
    return np.maximum((b - a).var(axis=1, ddof=1), (errors[0] + errors[1]) / (2 * IMAGES))


def _rank_sums(x: Array) -> Array:
    """Of the positive values of each row."""
    order = np.argsort(np.abs(x), axis=1)
    return np.take_along_axis(x > 0, order, axis=1) @ np.arange(1.0, x.shape[1] + 1)


# ── claims ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def at_most(rate: float, count: int, draws: int) -> bool:
    """By the one-sided 95 % bound (Clopper & Pearson 1934, Biometrika 26, 404-413); no bound where all were counted."""
    return scipy.stats.beta.ppf(0.95, count + 1, draws - count) <= rate


def at_least(rate: float, count: int, draws: int) -> bool:
    return scipy.stats.beta.ppf(0.05, count, draws - count + 1) >= rate


def not_above(rate: float, count: int, draws: int) -> bool:
    """Whether the draws do not contradict a rate of at most so much: fewer than 1 in 1,000 samples have more."""
    return count <= scipy.stats.binom.isf(0.001, draws, rate)


Claim = Callable[[Decisions, int], bool]  # of the decisions of all cells, and how many a check has


def alarms(holds: Callable[[float, int, int], bool], rate: float) -> Claim:
    """In how many checks of all at least one cell fails."""
    return lambda decisions, cells: holds(rate, (decisions.reshape(-1, cells) == "fail").any(axis=1).sum(), CHECKS)


def share(holds: Callable[[float, int, int], bool], rate: float, *kinds: str) -> Claim:
    """Of how many cells of all these are the decision."""
    return lambda decisions, cells: holds(rate, np.isin(decisions, kinds).sum(), decisions.size)


class TestSimulationIsTheGate:
    """The array path decides as the real functions do."""

    @pytest.mark.parametrize("cells", CELLS)
    def test_speed(self, cells):
        rng = np.random.default_rng(1)
        ratios = np.repeat([0.85, 1.0, 1.05, 1.08], 25)[:, np.newaxis]
        logs = np.log(ratios) + pair_logs(rng, (100, max(samples.looks(cells))), ratio=1.0, sd=0.07)
        found = [samples.find_speed(row.tolist(), cells) for row in logs]
        assert [one.decision for one in found if one] == list(speed_decisions(logs, cells))
        assert {one.decision for one in found if one} == {"fail", "pass", "improvement", "undecided"}

    @pytest.mark.parametrize("cells", CELLS)
    def test_memory(self, cells):
        asked = Margins(memory=MEMORY.margin)
        ratios = np.repeat([0.7, 1.0, 1.15, 1.3], 25)[:, np.newaxis]
        rng, last = np.random.default_rng(3), max(samples.looks(cells, MEMORY))
        logs = np.log(ratios) + pair_logs(rng, (100, last), ratio=1.0, sd=0.09)
        rows = [[pair(0.0, host_peak_mib=log) for log in row] for row in logs.tolist()]
        found = [samples.find_memory(row, cells, asked)["host_peak_mib"].decision for row in rows]
        assert found == list(speed_decisions(logs, cells, MEMORY))
        assert set(found) == {"fail", "pass", "improvement", "undecided"}

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


UNCHANGED = alarms(at_most, 0.01), share(at_least, 0.99, "pass")
CLOSE = (NARROW, 0.02), (NARROW, 0.04), (NARROWEST, 0.02)
SELDOM_WORSE = share(not_above, 0.01, "pass", "improvement")


class TestSpeed:
    """And memory, of which pairs of identical code spread by 0.5 and 4 % (docs/log.md)."""

    @pytest.mark.parametrize("cells", CELLS)
    @pytest.mark.parametrize(
        ("margins", "ratio", "sd", "claims"),
        [
            *((MARGINS, 1.0, sd, UNCHANGED) for sd in SDS),
            # Just tolerated: the case is at the edge, and the simulation can see it.
            *((MARGINS, 1.03, sd, (alarms(not_above, MARGINS.alpha), alarms(at_least, 1e-9))) for sd in SDS),
            *(
                (MARGINS, 1.10, sd, (share(at_least, found, "fail"), SELDOM_WORSE))
                for sd, found in zip(SDS, (0.99, 0.99, 0.97), strict=True)
            ),
            *(
                (margins, 1.0, sd, (alarms(not_above, MARGINS.alpha), share(at_least, 0.98, "pass")))
                for margins, sd in CLOSE
            ),
            *(
                (margins, 1 + margins.detect, sd, (share(at_least, 0.98, "fail"), SELDOM_WORSE))
                for margins, sd in CLOSE
            ),
            *((MEMORY, 1.0, sd, UNCHANGED) for sd in (0.02, 0.06)),
            *((MEMORY, 1.1, sd, (alarms(not_above, MEMORY.alpha),)) for sd in (0.02, 0.06)),
            *((MEMORY, 1.2, sd, (share(at_least, 0.98, "fail"), SELDOM_WORSE)) for sd in (0.02, 0.06)),
        ],
    )
    def test_rates(self, cells, margins, ratio, sd, claims):
        rng = np.random.default_rng([10, cells, round(1000 * sd), round(100 * ratio)])
        logs = pair_logs(rng, (CHECKS * cells, max(samples.looks(cells, margins))), ratio=ratio, sd=sd)
        decisions = speed_decisions(logs, cells, margins)
        assert [claim(decisions, cells) for claim in claims] == [True] * len(claims)

    @pytest.mark.parametrize("margins", [MARGINS, NARROWEST])
    @pytest.mark.parametrize("cells", [1, 2, 5, 20, 200, 10_000])
    def test_level_of_all_looks_is_kept_exactly(self, cells, margins):
        """At exactly what is tolerated: the chances of a false alarm at each look add up to no more than alpha / K."""
        planned = samples.looks(cells, margins)
        tails = [stats.signed_rank_distribution(n)[critical_rank_sum(n, planned[n]) :] for n in planned]
        chances = [float(tail.sum()) for tail in tails]
        assert 0.5 * MARGINS.alpha < cells * sum(chances) <= MARGINS.alpha

    @pytest.mark.parametrize("pairs", [8, 12, 16, 28, 49])
    @pytest.mark.parametrize("sd", SDS)
    def test_intervals_cover(self, pairs, sd):
        rng = np.random.default_rng([13, pairs, round(1000 * sd)])
        draws = 4 * CHECKS  # of 8 pairs intervals cover 96.1 % by design
        intervals = stats.hodges_lehmann_of_columns(pair_logs(rng, (pairs, draws), ratio=1.07, sd=sd))
        covered = sum((i.low or 0.0) <= math.log(1.07) <= (i.high or 0.0) for i in intervals)
        assert at_least(0.93, covered, draws)
        assert at_most(0.97, covered, draws)

    @pytest.mark.parametrize(("cells", "sd", "ratio"), [(1, 0.02, 1.1), (1, 0.06, 1.05), (20, 0.06, 1.05)])
    def test_intervals_hardly_suffer_from_early_decisions(self, cells, sd, ratio):
        """Over the pairs up to the look that decided: no longer exact, near it all the same."""
        logs = pair_logs(np.random.default_rng(15), (CHECKS, max(samples.looks(cells))), ratio=ratio, sd=sd)
        used = np.full(CHECKS, logs.shape[1])
        for look in reversed(samples.looks(cells)):
            used[speed_decisions(logs[:, :look], cells) != "undecided"] = look
        intervals = [stats.hodges_lehmann(row[:pairs]) for row, pairs in zip(logs, used, strict=True)]
        covered = sum((i.low or 0.0) <= math.log(ratio) <= (i.high or 0.0) for i in intervals)
        assert at_least(0.90, covered, CHECKS)
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
        assert alarms(not_above, MARGINS.drop_alpha)(accuracy_decisions(a, b, cells), cells)

    def test_students_t_alone_would_cry_wolf_over_plateaus(self):
        """The control: 8 of 100 checks of 20 such cells."""
        a, b = (two_humped(np.random.default_rng(34 + n), (CHECKS * 20, samples.SEED_LOOKS[-1]), 0.5) for n in range(2))
        assert alarms(at_least, 0.05)(accuracy_decisions(a, b, 20, humps=False), 20)
