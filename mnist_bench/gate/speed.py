"""Is a cell slower? Exact tests over process pairs, looked at three times. Pure.

A test at a look has the level alpha / 3K: K cells, three looks. However the cells and looks hang together, the chance
of a false alarm over all of them is then at most alpha (Bonferroni).

Sources: Wilcoxon (1945), Biometrics Bulletin 1, 80-83; Hollander, Wolfe & Chicken, *Nonparametric Statistical
Methods*, 3rd ed., section 3.1; looks with a fixed share of the level each: Jennison & Turnbull, *Group Sequential
Methods*, chapter 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mnist_bench import stats
from mnist_bench.gate.records import Decision, Margins, ProcessPair, SpeedFinding

LOOKS = 3
FEWEST_PAIRS = 12
SPARE_PAIRS = 3  # beyond the fewest of which a test can reject at all: up to three small ranks may then point elsewhere
DEFAULT = Margins()


def looks(cells: int, margins: Margins = DEFAULT) -> tuple[int, int, int]:
    """The numbers of pairs at which a cell is tested; between them nothing is.

    Of n pairs the smallest p-value is 2^-n, so the first look needs log2(3K / alpha) pairs to be able to decide at all.

    Args:
        cells: K, how many the check compares; at least 1.
        margins: for alpha.

    Raises:
        ValueError: no cell.

    >>> looks(1), looks(20)
    ((12, 21, 36), (16, 28, 48))
    """
    first = max(FEWEST_PAIRS, math.ceil(-math.log2(level(cells, margins))) + SPARE_PAIRS)
    return first, math.ceil(1.75 * first), 3 * first


def next_look(pairs: int, cells: int, margins: Margins = DEFAULT) -> int | None:
    """The number of pairs at which an undecided cell with so many is tested next; None: no look is left."""
    return next((look for look in looks(cells, margins) if look > pairs), None)


def level(cells: int, margins: Margins = DEFAULT) -> float:
    """Of one test of one cell at one look."""
    if cells < 1:
        raise ValueError(f"a check compares at least one cell, not {cells}")
    return margins.alpha / (LOOKS * cells)


def find_speed(pairs: Sequence[ProcessPair], cells: int, margins: Margins = DEFAULT) -> SpeedFinding | None:
    """What the process pairs of one cell say.

    At each look that its pairs have reached, in order: ``fail`` if a ratio <= 1 + margin is rejected; else
    ``improvement`` if a ratio >= 1 / (1 + detect) is, that is, the reference is shown to be slower by more than
    ``detect``; else ``pass`` if a ratio >= 1 + detect is. The first look that decides stands: pairs beyond it are not
    used, so that none can be added until the answer pleases. While nothing is decided, the estimate is over all pairs
    and the p-values are those of the last look (1 before the first).

    Args:
        pairs: of one cell, in any order; their numbers say which came first.
        cells: K, how many the check compares.
        margins: what is tolerated, and how often this may be wrong.

    Returns:
        None without a pair.

    Raises:
        ValueError: a log ratio that is not finite, no cell.
    """
    if not pairs:
        return None
    logs = [pair.log_ratio for pair in sorted(pairs, key=lambda pair: pair.number)]
    tested, used = _Tests(), len(logs)
    for look in looks(cells, margins):
        if look > len(logs):
            break
        tested = _test(logs[:look], level(cells, margins), margins)
        if tested.decision != "undecided":
            used = look
            break
    return SpeedFinding(
        decision=tested.decision,
        ratio=stats.hodges_lehmann(logs[:used]).exp(),
        pairs=used,
        p_slower=tested.p_slower,
        p_within=tested.p_within,
        alpha=level(cells, margins),
        next_look=next_look(used, cells, margins) if tested.decision == "undecided" else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tests:
    """Of one look."""

    decision: Decision = "undecided"
    p_slower: float = 1.0
    p_within: float = 1.0


def _test(logs: Sequence[float], alpha: float, margins: Margins) -> _Tests:
    p_slower = p_above(logs, math.log1p(margins.margin))
    p_within = p_below(logs, math.log1p(margins.detect))
    decision: Decision = "undecided"
    if p_slower <= alpha:
        decision = "fail"
    elif p_within <= alpha:
        decision = "improvement" if p_below(logs, -math.log1p(margins.detect)) <= alpha else "pass"
    return _Tests(decision=decision, p_slower=p_slower, p_within=p_within)


def p_above(values: ArrayLike, bound: float) -> float:
    """The exact one-sided p-value of H0: the values are symmetric about a centre <= ``bound`` (signed-rank test).

    ``scipy.stats.wilcoxon`` is exact where no value equals the bound and no two lie equally far from it. Where they do,
    ranks are given out against the rejection: a value at the bound counts as below it, with the smallest ranks; of
    several equally far from it, those below have the larger ranks. No random order of the tied ones, each of which
    would be exact, gives a larger p-value; so this one is never too small.

    Args:
        values: shape (n,), n >= 1, finite.

    Raises:
        ValueError: an empty or non-finite sample.
    """
    from scipy.stats import wilcoxon  # takes a second: only a verdict needs it

    return float(wilcoxon(_signed_ranks(values, bound), alternative="greater", method="exact").pvalue)


def p_below(values: ArrayLike, bound: float) -> float:
    """The same of H0: a centre >= ``bound``."""
    return p_above(np.negative(values), -bound)


def _signed_ranks(values: ArrayLike, bound: float) -> stats.FloatArray:
    """1 to n by distance from the bound, each with its value's sign; ties and zeros as ``p_above`` says."""
    shifted = np.asarray(values, dtype=np.float64) - bound
    if shifted.ndim != 1 or not shifted.size or not np.isfinite(shifted).all():
        raise ValueError("a sample is one-dimensional, not empty and finite")
    below = shifted <= 0
    order = np.lexsort((below, np.abs(shifted)))  # by distance, the values above first
    ranks = np.empty(shifted.size)
    ranks[order] = np.arange(1, shifted.size + 1)
    signed: stats.FloatArray = np.where(below, -ranks, ranks)
    return signed
