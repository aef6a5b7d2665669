"""Does a stored check, judged again, give the verdicts that were stored with it?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mnist_bench.analysis.ratios import round_log_ratios
from mnist_bench.gate.judge import judge
from mnist_bench.gate.output.codec import verdict_values
from mnist_bench.gate.output.differences import differences
from mnist_bench.gate.records import Check, ProcessPair, Verdict
from mnist_bench.stats import median

# Of their size, two figures may differ by this much: on another machine, functions like exp() may round otherwise.
# Kinds, decisions, counts and sentences must be the same.
SAME = 1e-9
# A pair's ratio is stored beside the rounds that it is the median of.
SAME_PAIR = 1e-6

Judge = Callable[[Check], tuple[Verdict, ...]]


def disagreements(check: Check, stored: Sequence[Verdict], judge: Judge = judge) -> Iterator[str]:
    """Every place where samples, ratios and verdicts do not follow from each other, in words; none: all is as stored.

    Args:
        stored: the verdicts that were written with the check.
        judge: for tests.
    """
    if check.mode == "against":
        yield from _pairs_unlike_their_rounds(check)
    judged = judge(check)
    for number in range(max(len(stored), len(judged))):
        yield from _of_one(stored[number : number + 1], judged[number : number + 1])


def _pairs_unlike_their_rounds(check: Check) -> Iterator[str]:
    for evidence in check.cells:
        for pair in evidence.pairs:
            found = _log_ratio(pair)
            if found is not None and not math.isclose(found, pair.log_ratio, abs_tol=SAME_PAIR):
                yield (
                    f"{evidence.cell.id}: pair {pair.number}: log_ratio: stored {_said(pair.log_ratio)}, "
                    f"by its rounds {_said(found)}"
                )


def _log_ratio(pair: ProcessPair) -> float | None:
    """The median over rounds of ln(B / A); None where no round holds both."""
    values = round_log_ratios(pair.rounds, 1, 0)
    return median(values) if values.size else None


def _of_one(stored: Sequence[Verdict], judged: Sequence[Verdict]) -> Iterator[str]:
    if not judged:
        yield f"{stored[0].cell.id}: stored as {stored[0].kind}, judged not at all"
    elif not stored:
        yield f"{judged[0].cell.id}: judged {judged[0].kind}, but no verdict is stored"
    else:
        (before,), (now,) = verdict_values(stored), verdict_values(judged)
        for one in differences(before, now, relative=SAME):
            yield f"{judged[0].cell.id}: {one.where}: stored {_said(one.left)}, judged {_said(one.right)}"


def _said(value: Any) -> str:
    return "nothing" if value is None else f"{value!r:.200}"
