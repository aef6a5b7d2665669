"""The light mode's judgement of speed: a run's paired ratios against those of a baseline. Pure.

What is compared is a ratio of ratios: (seconds per step, cell / its reference variant) here / in the baseline. Each of
the two was measured side by side, so the machine's drift between the two days is not in it; what is in it, and in no
interval, is what moves a cell and its reference differently (another microcode, a hotter machine). Nor can it tell a
slower cell from a faster reference: what is slower in both alike goes unseen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mnist_bench.gate.records import CellEvidence, Decision, Margins, RatioEvidence, SessionLogRatio, SpeedFinding
from mnist_bench.stats import Interval, student_quantile

# How well the standard error that a session states is known: as well as from a sample with so many degrees of freedom.
# Most of it is ``PROCESS_SD``, which rests on a few dozen processes of two models (decision 0009).
STATED_FREEDOM = 10
MOST_SEEDS = 1000  # that are ever proposed
WIDEST = 200.0  # end of an interval of a log: beyond, it says nothing, and exp() would overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """ln(ratio here / ratio in the baseline): estimate, standard error, degrees of freedom of that error."""

    estimate: float
    error: float
    freedom: int


def judge_ratio(evidence: RatioEvidence, cells: int, margins: Margins) -> SpeedFinding | None:
    """What the sessions of both sides say: Student's one-sided tests at ``margins.alpha / cells`` (Bonferroni).

    ``fail``, tested first: a ratio <= 1 + margin is rejected. ``improvement``: a ratio >= 1 / (1 + detect) is.
    ``pass``: a ratio >= 1 + detect is.

    Args:
        cells: how many cells of the check have ratios on both sides (``ratios_compared``).

    Returns:
        None where a side has no session.
    """
    from scipy.special import stdtr  # a fifth of a second, which --help need not wait for

    if not evidence.a or not evidence.b:
        return None
    shift, alpha = shift_of(evidence.a, evidence.b), margins.alpha / cells
    slower, detectable = math.log1p(margins.margin), math.log1p(margins.detect)

    def p_below(bound: float) -> float:
        """P(an estimate as low as this, where the shift is ``bound``)."""
        return float(stdtr(shift.freedom, (shift.estimate - bound) / shift.error))

    p_slower = float(stdtr(shift.freedom, (slower - shift.estimate) / shift.error))
    p_within = p_below(detectable)
    decision: Decision = "undecided"
    if p_slower <= alpha:
        decision = "fail"
    elif p_within <= alpha:
        decision = "improvement" if p_below(-detectable) <= alpha else "pass"
    return SpeedFinding(
        decision=decision,
        ratio=_interval(shift).exp(),
        pairs=min(len(evidence.a), len(evidence.b)),
        p_slower=p_slower,
        p_within=p_within,
        alpha=alpha,
        next_look=None,
        unit="session",
    )


def ratios_compared(cells: Iterable[CellEvidence]) -> int:
    """K of the tests: the cells that have ratios on both sides."""
    return sum(one.ratios is not None and bool(one.ratios.a and one.ratios.b) for one in cells)


def shift_of(a: Sequence[SessionLogRatio], b: Sequence[SessionLogRatio]) -> Shift:
    """The difference of the sides' means over sessions, its standard error, and the freedom of that.

    Every session states its own error; the sides' errors add up. Where the sessions of a side scatter more than they
    state, all errors are stretched by the root of the dispersion: (f + sum of squared residuals / stated variance) /
    (f + d), never below 1, with f = ``STATED_FREEDOM`` and d the sessions less the sides. One session has no residual:
    it is believed as far as the stated error is known, f degrees of freedom.

    Sources: R. T. Birge, Phys. Rev. 40 (1932) 207 (errors stretched by their scatter); G. K. Smyth, Stat. Appl. Genet.
    Mol. Biol. 3 (2004) 3, section 3 (a variance known beforehand as so many degrees of freedom of the t test).
    """
    return _combined((a, -1), (b, 1))


def mean_ratio(sessions: Sequence[SessionLogRatio]) -> Interval:
    """The log ratio of one side and its 95 % interval, by the same rules."""
    return _interval(_combined((sessions, 1)))


def _combined(*sides: tuple[Sequence[SessionLogRatio], int]) -> Shift:
    """The sum of the sides' means, each with its sign."""
    estimate, stated, scatter = 0.0, 0.0, 0.0
    for side, sign in sides:
        mean = math.fsum(one.log_ratio for one in side) / len(side)
        variance = math.fsum(one.sd**2 for one in side) / len(side)
        estimate += sign * mean
        stated += variance / len(side)
        scatter += math.fsum((one.log_ratio - mean) ** 2 for one in side) / variance
    freedom = STATED_FREEDOM + sum(len(side) - 1 for side, _ in sides)
    dispersion = max(1.0, (STATED_FREEDOM + scatter) / freedom)
    return Shift(estimate=estimate, error=math.sqrt(stated * dispersion), freedom=freedom)


def seeds_needed(evidence: RatioEvidence, cells: int, margins: Margins) -> int | None:
    """About how many seeds on both sides would decide, if the estimate stayed what it is.

    Returns:
        None where a side has no session, or over ``MOST_SEEDS`` would be needed.
    """
    if not evidence.a or not evidence.b:
        return None
    shift = shift_of(evidence.a, evidence.b)
    distance = max(shift.estimate - math.log1p(margins.margin), math.log1p(margins.detect) - shift.estimate)
    of_one_seed = shift.error / math.sqrt(1 / len(evidence.a) + 1 / len(evidence.b))
    confidence = 1 - 2 * margins.alpha / cells  # of the interval whose ends are the one-sided tests
    for seeds in range(1, MOST_SEEDS + 1):
        quantile = student_quantile(STATED_FREEDOM + 2 * seeds - 2, confidence)
        if quantile * of_one_seed * math.sqrt(2 / seeds) < distance:
            return seeds
    return None


def _interval(shift: Shift) -> Interval:
    half = student_quantile(shift.freedom) * shift.error
    return Interval(shift.estimate, max(shift.estimate - half, -WIDEST), min(shift.estimate + half, WIDEST))
