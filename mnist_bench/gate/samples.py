"""Is a cell slower, or less accurate? Tests at a few looks that are fixed beforehand. Pure.

**Speed**: exact tests over process pairs, looked at a few times; t tests over the sessions of two runs. The first look
has half of alpha, the others share the rest, and so do the K cells. However they hang together, the chance of a false
alarm over all of them is then at most alpha (Bonferroni). The first look takes the fewest pairs of which a test can
reject at all: it finds large differences, and most of what is unchanged. The nearer the two margins are to each other,
the more looks there are, each at 1.75 times the pairs of the one before.

Sources: Wilcoxon (1945), Biometrics Bulletin 1, 80-83; Hollander, Wolfe & Chicken, *Nonparametric Statistical
Methods*, 3rd ed., section 3.1; looks with a share of the level each: Jennison & Turnbull, *Group Sequential
Methods*, chapter 2.

**Accuracy**: equal predictions first; for the seeds that differ, t tests. Two trainings of one recipe spread: one
accuracy has the standard deviation sqrt(err / 2n) about its mean (n scored images, error rate err), where an ensemble
of trainings is calibrated (Jordan, *On the Variance of Neural Network Training with respect to Test Sets and
Distributions*, 2023, arXiv:2304.01910). The difference of two independent trainings then has the variance
err_a / 2n + err_b / 2n. It is the least variance that is believed: seeds that happen to agree prove little. Sides that
share a seed may differ by less; the tests are then careful, not wrong.

Trainings that start on a plateau are not normal: they end in one of two humps, far apart. That every seed of A ends in
the upper and every one of B in the lower has the chance (p (1 - p))^n <= 4^-n though nothing has changed, and Student's
t, which sees hardly any spread then, would call it a drop: nothing fails before 4^-n is below the level of its test.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np
from msgspec.structs import replace
from numpy.typing import ArrayLike

from mnist_bench import stats
from mnist_bench.gate.evidence import PEAKS, Margins, Pair, Record, SeedPair, SessionRatio, Training

LOOKS = 4  # of speed, at least
FEWEST_PAIRS = 12  # of the second look
SPARE_PAIRS = 4  # of the second look, beyond the first: a few small ranks may then point elsewhere
GROWTH = 1.75  # of the pairs, from the second look on
REACH = 6.2 * 0.06  # the last look: 6.2 standard errors from one margin to the other, where pairs spread by 6 %
MOST_PAIRS = 200  # no look after one of so many: where pairs spread by 2 %, they tell margins apart that differ by 1 %
DEFAULT = Margins()
# How well the standard error that a session states is known: as well as from a sample with so many degrees of freedom.
# Most of it is ``PROCESS_SD``, which rests on a few dozen processes of two models (decision 0009).
STATED_FREEDOM = 10
MOST_SEEDS = 1000  # that are ever proposed
WIDEST = 200.0  # end of an interval of a log: beyond, it says nothing, and exp() would overflow

# Numbers of seeds that differ at which a cell is tested, each half as many again. Below 4, Student's quantile at these
# levels is so large that only a wreck would show. At 10 % errors and 20 cells, 72 find a drop of 0.30 pp in 98 of 100.
SEED_LOOKS = (4, 6, 9, 14, 21, 32, 48, 72)

Decision = Literal["fail", "pass", "improvement", "undecided"]


class SpeedFinding(Record, frozen=True, kw_only=True):
    """What the pairs say, or the sessions of two runs (``unit``; ``count`` is that of the side with fewer).

    ``ratio`` is B's speed / A's with its 95 % interval, above 1 where B is faster; of two runs, that of their ratios to
    the reference variant. ``next_look`` is the number of pairs at which the cell is looked at again; None: never.
    """

    decision: Decision
    ratio: stats.Interval
    count: int
    unit: Literal["pair", "session"] = "pair"
    p_slower: float = 1.0  # of H0: seconds per step, B / A <= 1 + margin
    p_within: float = 1.0  # of H0: >= 1 + detect
    alpha: float  # the level of one test at one look
    next_look: int | None = None
    slower_on: tuple[str, ...] = ()  # nodes of a cluster that keep it from a pass


def looks(cells: int, margins: Margins = DEFAULT) -> dict[int, float]:
    """The numbers of pairs at which a cell is tested, and the level of a test there; between them nothing is tested.

    Of n pairs the smallest p-value is 2^-n, so a first look needs log2(2K / alpha) pairs to be able to decide at all.

    Args:
        cells: K, how many the check compares; at least 1.

    >>> [*looks(1)], [*looks(20)], [*looks(1, Margins(margin=0, detect=0.01))]
    ([8, 12, 21, 37], [12, 16, 28, 49], [8, 12, 21, 37, 65, 114, 200])
    """
    level = margins.alpha / (2 * cells)
    first = 1 - math.frexp(level)[1]  # exactly: 2^-first <= level < 2^(1 - first)
    later = [max(FEWEST_PAIRS, first + SPARE_PAIRS)]
    room = math.log1p(margins.detect) - math.log1p(margins.margin)
    while len(later) < LOOKS - 1 or (later[-1] < MOST_PAIRS and later[-1] * room**2 < REACH**2):
        later.append(math.ceil(GROWTH * later[-1]))
    return {first: level} | dict.fromkeys(later, level / len(later))


def find_speed(
    logs: Sequence[float], cells: int, margins: Margins = DEFAULT, nodes: Sequence[str] = ()
) -> SpeedFinding | None:
    """What the process pairs of one cell say.

    At each look that its pairs have reached, in order: ``fail`` if a ratio <= 1 + margin is rejected; else
    ``improvement`` if a ratio >= 1 / (1 + detect) is, that is, the reference is shown to be slower by more than
    ``detect``; else ``pass`` if a ratio >= 1 + detect is. The first look that decides stands: pairs beyond it are not
    used, so that none can be added until the answer pleases. While nothing is decided, the estimate is over all pairs
    and the p-values are those of the last look (1 before the first).

    On a cluster each node's pairs are a stratum. The signed-rank test of all of them is exact where every node's centre
    is the bound, whatever their spreads: it takes signs as tossed once the distances from the bound are known. So a
    ``fail`` asks for no more. That a ratio >= 1 + detect is rejected says only that not all nodes are so slow: as long
    as the median of one node's own pairs is, nothing passes (docs/decisions/0037).

    Args:
        logs: ln(seconds per step, B / A) of each pair, in the order of measuring.
        nodes: where each was measured; empty: all on one machine.
        cells: K, how many the check compares.
        margins: what is tolerated, and how often this may be wrong.

    Returns:
        None without a pair.
    """
    if not logs:
        return None
    planned, used = looks(cells, margins), len(logs)
    alpha = max(planned.values())  # of the first
    decision: Decision = "undecided"
    p_slower = p_within = 1.0
    slower_on: tuple[str, ...] = ()
    for look in (look for look in planned if look <= len(logs)):
        alpha = planned[look]
        p_slower = p_above(logs[:look], math.log1p(margins.margin))
        p_within = p_below(logs[:look], math.log1p(margins.detect))
        decision = _decision(p_slower, p_within, p_below(logs[:look], -math.log1p(margins.detect)), alpha)
        slower_on = _slower(logs[: len(nodes[:look])], nodes[:look], math.log1p(margins.detect))
        if slower_on and decision in ("pass", "improvement"):
            decision = "undecided"
        if decision != "undecided":
            used = look
            break
    left = (look for look in planned if look > used)
    return SpeedFinding(
        decision=decision,
        ratio=stats.hodges_lehmann(np.negative(logs[:used])).exp(),
        count=used,
        p_slower=p_slower,
        p_within=p_within,
        alpha=alpha,
        next_look=next(left, None) if decision == "undecided" else None,
        slower_on=slower_on * (decision == "undecided" and p_within <= alpha),
    )


def _slower(logs: Sequence[float], nodes: Sequence[str], bound: float) -> tuple[str, ...]:
    """The nodes whose own pairs have their median at the bound, or beyond it."""
    own: dict[str, list[float]] = {}
    for log, node in zip(logs, nodes, strict=True):
        own.setdefault(node, []).append(log)
    return tuple(sorted(node for node, some in own.items() if stats.median(some) >= bound))


def find_memory(pairs: Sequence[Pair], cells: int, margins: Margins = DEFAULT) -> dict[str, SpeedFinding]:
    """What the process pairs of one cell say of each peak of memory that they have; nothing where none is asked.

    The test is that of speed, at the same looks and level: a peak is a figure of a process too, and spreads less. The
    ratio is B's / A's, above 1 where B takes more.
    """
    if margins.memory is None:
        return {}
    own, found = replace(margins, margin=margins.memory, detect=2 * margins.memory), {}
    for figure in PEAKS:
        logs = [math.log(b / a) for a, b in (pair.peaks[figure] for pair in pairs if figure in pair.peaks)]
        if one := find_speed(logs, cells, own):
            found[figure] = replace(one, ratio=stats.hodges_lehmann(logs[: one.count]).exp())
    return found


def _decision(p_slower: float, p_within: float, p_faster: float, alpha: float) -> Decision:
    if p_slower <= alpha:
        return "fail"
    if p_within > alpha:
        return "undecided"
    return "improvement" if p_faster <= alpha else "pass"


def p_above(values: ArrayLike, bound: float) -> float:
    """The exact one-sided p-value of H0: the values are symmetric about a centre <= ``bound`` (signed-rank test).

    ``scipy.stats.wilcoxon`` is exact where no value equals the bound and no two lie equally far from it. Where they do,
    ranks are given out against the rejection: a value at the bound counts as below it, with the smallest ranks; of
    several equally far from it, those below have the larger ranks. No random order of the tied ones, each of which
    would be exact, gives a larger p-value; so this one is never too small.

    Args:
        values: shape (n,), n >= 1, finite.
    """
    from scipy.stats import wilcoxon  # takes a second: only a verdict needs it

    shifted = np.asarray(values, dtype=np.float64) - bound
    below = shifted <= 0
    order = np.lexsort((below, np.abs(shifted)))  # by distance, the values above first
    ranks = np.empty(shifted.size)
    ranks[order] = np.arange(1, shifted.size + 1)
    return float(wilcoxon(np.where(below, -ranks, ranks), alternative="greater", method="exact").pvalue)


def p_below(values: ArrayLike, bound: float) -> float:
    """The same of H0: a centre >= ``bound``."""
    return p_above(np.negative(values), -bound)


# ── accuracy ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class AccuracyFinding(Record, frozen=True, kw_only=True):
    """What the seeds say. ``change`` is the mean of B - A over the seeds that differ, with its 95 % interval.

    ``identical`` counts the seeds with equal predictions, ``seeds`` all of them.
    """

    decision: Decision
    a: float
    b: float
    change: stats.Interval
    seeds: int
    identical: int
    more_seeds: int = 0  # how many more are needed for a decision, about; 0: decided, or no look is left


def find_accuracy(seeds: Sequence[SeedPair], cells: int, margins: Margins = DEFAULT) -> AccuracyFinding | None:
    """What the seeds of one cell say.

    ``pass`` where the predictions of every seed are equal. Else the seeds that differ are tested alone, so that equal
    ones neither dilute a drop nor vouch for it. At each look that they have reached, in order: ``fail`` if a drop <=
    ``drop`` is rejected, else ``pass`` if a drop >= ``drop_detect`` is. The first look that decides stands; seeds
    beyond it are not used.

    A test that fails has the level drop_alpha / (looks K): false alarms are counted over all cells and looks. A test
    that passes has drop_alpha / looks: each real drop is certified away with at most that chance, over its looks.

    Args:
        seeds: of one cell, in the order in which they were trained.
        cells: K, how many the check compares.
        margins: what is tolerated, and how often this may be wrong.

    Returns:
        None without a seed. The interval of ``change`` is Student's, the standard deviation floored; None below 3.
    """
    if not seeds:
        return None
    counts = list(accumulate(int(not seed.identical) for seed in seeds))  # of those that differ, so far
    decision: Decision = "undecided" if counts[-1] else "pass"
    for number in (look for look in SEED_LOOKS if look <= counts[-1]):
        used = seeds[: counts.index(number) + 1]
        decision = _test(*_changes(used), number, cells, margins)
        if decision != "undecided":
            break
    else:
        used = seeds
    changes, sd = _changes(used)
    return AccuracyFinding(
        decision=decision,
        a=statistics.fmean(seed.a.accuracy for seed in used),
        b=statistics.fmean(seed.b.accuracy for seed in used),
        change=stats.t_interval(changes, variance_floor=sd**2) if changes else stats.Interval(0.0, 0.0, 0.0),
        seeds=len(used),
        identical=sum(seed.identical for seed in used),
        more_seeds=_more_seeds(seeds, cells, margins) if decision == "undecided" else 0,
    )


def drop_level(cells: int, margins: Margins = DEFAULT) -> float:
    """Of one test for a drop, of one cell at one look; with one cell that of a test against a drop."""
    return margins.drop_alpha / (len(SEED_LOOKS) * cells)


def floor_variance(*sides: Sequence[Training]) -> float:
    """The least variance of one difference B - A that is believed: err_a / 2n + err_b / 2n.

    With one error at least a side: none at all proves no certainty.
    """
    images = [min(one.images for one in side) for side in sides]
    errors = [1 - statistics.fmean(one.accuracy for one in side) for side in sides]
    return sum(max(error, 1 / n) / (2 * n) for error, n in zip(errors, images, strict=True))


def _test(changes: Sequence[float], sd: float, number: int, cells: int, margins: Margins) -> Decision:
    """The decision if ``number`` seeds had the mean of ``changes`` and the standard deviation ``sd``."""
    mean, alpha = statistics.fmean(changes), drop_level(cells, margins)
    needed, ruled_out = (
        stats.student_quantile(number - 1, 1 - 2 * each) * sd / math.sqrt(number)
        for each in (alpha, drop_level(1, margins))
    )
    if 0.25**number <= alpha and -mean - margins.drop >= needed:
        return "fail"
    return "pass" if margins.drop_detect + mean >= ruled_out else "undecided"


def _changes(seeds: Sequence[SeedPair]) -> tuple[list[float], float]:
    """B - A of the seeds that differ, and the standard deviation of one of them: at least the floor."""
    differing = [seed for seed in seeds if not seed.identical]
    changes = [seed.b.accuracy - seed.a.accuracy for seed in differing]
    own = statistics.variance(changes) if len(changes) > 1 else 0.0
    floor = floor_variance([seed.a for seed in differing], [seed.b for seed in differing]) if differing else 0.0
    return changes, math.sqrt(max(own, floor))


def _more_seeds(seeds: Sequence[SeedPair], cells: int, margins: Margins) -> int:
    """About how many more until a look decides, if mean and spread stay as they are; 0: no look is left.

    Where no look would, those up to the last one. Seeds with equal predictions, in the share seen so far, are counted
    in: they bring no look nearer.
    """
    changes, sd = _changes(seeds)
    left = [look for look in SEED_LOOKS if look > len(changes)]
    if not left:
        return 0
    deciding = (look for look in left if _test(changes, sd, look, cells, margins) != "undecided")
    return math.ceil((next(deciding, left[-1]) - len(changes)) * len(seeds) / len(changes))


# ── two runs: a ratio of ratios ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Shift:
    """ln(ratio here / ratio in the baseline): estimate, standard error, degrees of freedom of that error."""

    estimate: float
    error: float
    freedom: int

    @property
    def faster(self) -> stats.Interval:
        """How much faster, with its 95 % interval."""
        half = stats.student_quantile(self.freedom) * self.error
        ends = max(-self.estimate - half, -WIDEST), min(-self.estimate + half, WIDEST)
        return stats.Interval(-self.estimate, *ends).exp()


def find_shift(
    a: Sequence[SessionRatio], b: Sequence[SessionRatio], cells: int, margins: Margins
) -> SpeedFinding | None:
    """What the sessions of both sides say: Student's one-sided tests at ``margins.alpha / cells`` (Bonferroni).

    What is compared is a ratio of ratios: (seconds per step, cell / its reference variant) here / in the baseline. Each
    of the two was measured side by side, so the machine's drift between the two days is not in it; what is in it, and
    in no interval, is what moves a cell and its reference differently (another microcode, a hotter machine). Nor can it
    tell a slower cell from a faster reference: what is slower in both alike goes unseen.

    Args:
        cells: how many cells of the check have ratios on both sides.

    Returns:
        None where a side has no session.
    """
    from scipy.special import stdtr  # a fifth of a second, which --help need not wait for

    if not a or not b:
        return None
    shift, alpha = shift_of((a, -1), (b, 1)), margins.alpha / cells
    slower, seen = math.log1p(margins.margin), math.log1p(margins.detect)
    short_of = (slower - shift.estimate, shift.estimate - seen, shift.estimate + seen)
    p_slower, p_within, p_faster = (float(stdtr(shift.freedom, each / shift.error)) for each in short_of)
    return SpeedFinding(
        decision=_decision(p_slower, p_within, p_faster, alpha),
        ratio=shift.faster,
        count=min(len(a), len(b)),
        unit="session",
        p_slower=p_slower,
        p_within=p_within,
        alpha=alpha,
    )


def shift_of(*sides: tuple[Sequence[SessionRatio], int]) -> Shift:
    """The sum of the sides' means over sessions (of seconds per step), each with its sign.

    Every session states its own error; the sides' errors add up. Where the sessions of a side scatter more than they
    state, all errors are stretched by the root of the dispersion: (f + sum of squared residuals / stated variance) /
    (f + d), never below 1, with f = ``STATED_FREEDOM`` and d the sessions less the sides. One session has no residual:
    it is believed as far as the stated error is known, f degrees of freedom.

    Sources: R. T. Birge, Phys. Rev. 40 (1932) 207 (errors stretched by their scatter); G. K. Smyth, Stat. Appl. Genet.
    Mol. Biol. 3 (2004) 3, section 3 (a variance known beforehand as so many degrees of freedom of the t test).
    """
    estimate, stated, scatter = 0.0, 0.0, 0.0
    for side, sign in sides:
        logs = [-math.log(one.speedup) for one in side]
        mean = math.fsum(logs) / len(side)
        variance = math.fsum(one.sd**2 for one in side) / len(side)
        estimate += sign * mean
        stated += variance / len(side)
        scatter += math.fsum((log - mean) ** 2 for log in logs) / variance
    freedom = STATED_FREEDOM + sum(len(side) - 1 for side, _ in sides)
    dispersion = max(1.0, (STATED_FREEDOM + scatter) / freedom)
    return Shift(estimate, math.sqrt(stated * dispersion), freedom)


def seeds_needed(a: Sequence[SessionRatio], b: Sequence[SessionRatio], cells: int, margins: Margins) -> int | None:
    """About how many seeds on both sides would decide, if the estimate stayed what it is; None: over ``MOST_SEEDS``."""
    shift = shift_of((a, -1), (b, 1))
    distance = max(shift.estimate - math.log1p(margins.margin), math.log1p(margins.detect) - shift.estimate)
    of_one_seed = shift.error / math.sqrt(1 / len(a) + 1 / len(b))
    confidence = 1 - 2 * margins.alpha / cells  # of the interval whose ends are the one-sided tests

    def decide(seeds: int) -> bool:
        quantile = stats.student_quantile(STATED_FREEDOM + 2 * seeds - 2, confidence)
        return quantile * of_one_seed * math.sqrt(2 / seeds) < distance

    return next(filter(decide, range(1, MOST_SEEDS + 1)), None)
