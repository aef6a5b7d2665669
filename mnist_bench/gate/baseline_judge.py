"""The evidence of a check against a baseline -> a verdict per cell. Pure: a stored check is judged again identically.

What stops a cell comes first: a missed floor, a failure, a cell that is gone. Accuracy is judged before speed; a cell
that is itself the reference variant has no ratio, and its accuracy decides alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnist_bench.gate import words
from mnist_bench.gate.accuracy import find_accuracy
from mnist_bench.gate.baseline_speed import judge_ratio, ratios_compared, seeds_needed
from mnist_bench.gate.records import (
    AccuracyFinding,
    CellEvidence,
    Check,
    Margins,
    RatioEvidence,
    Side,
    SpeedFinding,
    Verdict,
    VerdictKind,
)
from mnist_bench.records import Failure, Skip
from mnist_bench.table import plain

Ruling = tuple[VerdictKind, str]  # and why, as the predicate of a sentence about the cell


def judge_baseline(check: Check) -> tuple[Verdict, ...]:
    """The verdict of every cell of a check of mode ``baseline``, in its order."""
    compared = max(1, sum(bool(one.seeds) for one in check.cells))
    ratios = max(1, ratios_compared(check.cells))
    return tuple(_verdict(one, compared, ratios, check.margins) for one in check.cells)


def _verdict(evidence: CellEvidence, compared: int, ratios: int, margins: Margins) -> Verdict:
    ruling = _stopped(evidence) or _not_comparable(evidence)
    speed = accuracy = None
    if not evidence.faults and not evidence.differences:
        speed = judge_ratio(evidence.ratios, ratios, margins) if evidence.ratios else None
        accuracy = find_accuracy(evidence.seeds, compared, margins)
    kind, text = ruling or _joint(evidence, speed, accuracy, ratios, margins)
    return Verdict(
        cell=evidence.cell,
        kind=kind,
        text=f"{plain(evidence.cell.id)} {text}",
        speed=speed,
        accuracy=accuracy,
        advisories=evidence.figures,
    )


def _stopped(evidence: CellEvidence) -> Ruling | None:
    """Of a cell that failed, missed a floor of ``expect``, or is in one of the two alone."""
    here = _outcome(evidence, "B")
    if isinstance(here, Failure):
        return "failed", f"failed ({here.kind}): {plain(here.reason)}"
    missed = [one.message.removeprefix(f"{one.cell.id}: ") for one in evidence.floors if one.verdict == "missed"]
    if missed:
        return "failed", f"failed: {' and '.join(map(plain, missed))} of the matrix"
    if evidence.sides == "only A":
        return "missing", "is missing: the baseline has this cell, the run has not"
    if evidence.sides == "only B" and not isinstance(here, Skip):
        return "new", "is new: the baseline has no such cell"
    return None


def _not_comparable(evidence: CellEvidence) -> Ruling | None:
    there, here = (_outcome(evidence, side) for side in ("A", "B"))
    reason = "; ".join(map(plain, evidence.differences))
    if isinstance(here, Skip):
        lacks = evidence.sides == "only B"
        state = "lacks it" if lacks else "skipped it too" if isinstance(there, Skip) else "measured it"
        reason = f"it is skipped here, and the baseline {state}: {plain(here.reason)}"
    elif isinstance(there, Skip):
        reason = f"the baseline skipped it ({plain(there.reason)}): update it"
    return ("not_comparable", f"cannot be compared: {reason}") if reason else None


def _joint(
    evidence: CellEvidence, speed: SpeedFinding | None, accuracy: AccuracyFinding | None, ratios: int, margins: Margins
) -> Ruling:
    """Accuracy first; then what is worse than undecided, undecided, and what is better."""
    ratio = evidence.ratios
    if accuracy is not None and accuracy.decision == "fail":
        return "regression", f"is {words.less_accurate(accuracy, margins)}"
    if speed is not None and ratio is not None and speed.decision == "fail":
        return "regression", f"is {_against(speed, ratio)}; up to {100 * margins.margin:g} % is tolerated"
    undecided = [*_undecided_speed(ratio, speed, ratios, margins), *_undecided_accuracy(accuracy)]
    if undecided or accuracy is None:
        return "inconclusive", f"is inconclusive; {'; '.join(undecided)}"
    equal = f"accuracy: {words.not_less_accurate(accuracy, margins)}"
    if speed is None or ratio is None:
        return "pass", f"passes; {equal}; its own time is what others are held against, and not judged"
    if speed.decision == "improvement":
        return "improvement", f"is {_against(speed, ratio)}; {equal}; the baseline is stale: update it"
    ruled_out = f"a slow-down of {100 * margins.detect:g} % is ruled out: measured {_against(speed, ratio)}"
    return "pass", f"passes; speed: {ruled_out}; {equal}"


def _undecided_speed(
    ratio: RatioEvidence | None, speed: SpeedFinding | None, ratios: int, margins: Margins
) -> Iterator[str]:
    """What is not known, and what would help; nothing where speed is decided, or not to be judged."""
    if ratio is None:
        return
    if speed is None:
        yield f"its speed cannot be judged: {plain(ratio.why_none)}"
    elif speed.decision == "undecided":
        needed = seeds_needed(ratio, ratios, margins)
        more = f"about {needed} seeds in both would do" if needed else "too noisy to tell"
        noisy = sum(one.noisy for one in (*ratio.a, *ratio.b))
        disturbed = f"; {noisy} of them disturbed by other work on the machine" if noisy else ""
        sessions = f"{len(ratio.a)} timing session{'s' * (len(ratio.a) != 1)} in the baseline and {len(ratio.b)} here"
        yield f"its speed is not decided: measured {_against(speed, ratio)}, from {sessions}{disturbed}: {more}"


def _undecided_accuracy(accuracy: AccuracyFinding | None) -> Iterator[str]:
    if accuracy is None or accuracy.decision == "undecided":
        yield words.undecided_accuracy(accuracy)


def _against(speed: SpeedFinding, ratio: RatioEvidence) -> str:
    return f"{words.speed(speed)} against the baseline, relative to {plain(ratio.reference)}"


def _outcome(evidence: CellEvidence, side: Side) -> Failure | Skip | None:
    return next((fault.outcome for fault in evidence.faults if fault.side == side), None)
