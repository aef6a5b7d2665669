"""The evidence of a check -> a verdict per cell -> an exit code. Pure: a stored check is judged again identically."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from mnist_bench import figures
from mnist_bench.gate import words
from mnist_bench.gate.accuracy import breach, find_accuracy
from mnist_bench.gate.baseline_judge import judge_baseline
from mnist_bench.gate.records import (
    AccuracyFinding,
    Advisory,
    CellEvidence,
    Check,
    Margins,
    SeedPair,
    Side,
    Solo,
    SpeedFinding,
    Training,
    Verdict,
    VerdictKind,
)
from mnist_bench.gate.speed import find_speed, looks
from mnist_bench.records import Failure, Skip
from mnist_bench.table import plain

ExitCode = Literal[0, 3, 4, 5, 130]
Ruling = tuple[VerdictKind, str]  # and why, as the predicate of a sentence about the cell

# What is shown of the trainings and decides nothing: name -> (unit, figure).
ADVISORIES: dict[str, tuple[str, Callable[[Training], float | None]]] = {
    "compile time": ("s", lambda t: t.compile_s),
    "time to first step": ("s", lambda t: t.time_to_first_step_s),
    "evaluation throughput": ("samples/s", lambda t: t.eval_samples_per_s),
    "host memory": ("MiB", lambda t: t.host_peak_bytes / 2**20),
    "device memory": ("MiB", lambda t: None if t.device_peak_bytes is None else t.device_peak_bytes / 2**20),
}


def judge(check: Check) -> tuple[Verdict, ...]:
    """The verdict of every cell of a check, in its order.

    A speed verdict counts only where the accuracy has not failed. A missed floor of ``expect`` is ``failed``, not a
    ``regression``: it is absolute, the reference may miss it too; both exit with 3. So is a failure of B whatever
    became of A. A cell that the reference executes here and the change skips is ``missing``: it vanished.

    Raises:
        ValueError: a log ratio that is not finite.
    """
    if check.mode == "baseline":
        return judge_baseline(check)
    cells = max(1, cells_compared(check.cells))
    return tuple(_unmeasured(one) or _measured(one, cells, check) for one in check.cells)


def cells_compared(cells: Iterable[CellEvidence]) -> int:
    """K of the tests: the cells that are on both sides and do not differ.

    A cell that fails or is skipped on the way counts all the same: how often is looked, and at which level, may not
    hang on what was found.
    """
    return sum(one.sides == "both" and not one.differences for one in cells)


def exit_code(check: Check, verdicts: Sequence[Verdict]) -> ExitCode:
    """The contract's, in its order: interrupted 130; 3; inconclusive 4; nothing was compared 5; else 0."""
    kinds = {verdict.kind for verdict in verdicts}
    if check.status == "interrupted":
        return 130
    if kinds & {"regression", "missing", "failed"}:
        return 3
    if "inconclusive" in kinds:
        return 4
    return 0 if kinds & {"pass", "improvement"} else 5


def _unmeasured(evidence: CellEvidence) -> Verdict | None:
    """The verdict of a cell of which nothing can be compared; None: it can be."""
    found = _vanished(evidence) or _incomparable(evidence)
    return None if found is None else Verdict(cell=evidence.cell, kind=found[0], text=_sentence(evidence, found[1]))


def _vanished(evidence: CellEvidence) -> Ruling | None:
    """Of a cell that failed with the change, or is not on both sides."""
    a, b = (_outcome(evidence, side) for side in ("A", "B"))
    if isinstance(b, Failure):
        too = "; the reference failed too" if isinstance(a, Failure) else ""
        return "failed", f"failed with the change ({b.kind}): {plain(b.reason)}{too}"
    if evidence.sides == "only A":
        return "missing", "is missing: the reference has this cell, the change has not"
    if evidence.solo and (missed := _missed(evidence, [evidence.solo])):
        return "failed", f"failed: {missed}"
    if evidence.sides == "only B" and evidence.solo is None and b is None:
        return (
            "inconclusive",
            "is new, and was not trained in time: go on with --resume and a larger --budget",
        )
    if evidence.sides == "only B":
        return "new", "is new: the reference has no such cell"
    if isinstance(b, Skip) and a is None and not evidence.differences:
        return (
            "missing",
            f"is no longer executed here: the change skips it, unlike the reference: {plain(b.reason)}",
        )
    return None


def _incomparable(evidence: CellEvidence) -> Ruling | None:
    """Of a cell whose sides differ, or whose reference has no figures."""
    a, b = (_outcome(evidence, side) for side in ("A", "B"))
    if evidence.differences:
        reason = "; ".join(plain(one) for one in evidence.differences)
    elif isinstance(a, Failure):
        reason = f"the reference failed ({a.kind}): {plain(a.reason)}"
    elif isinstance(a, Skip):
        reason = f"{'both sides skip' if isinstance(b, Skip) else 'the reference skips'} it: {plain(a.reason)}"
    else:
        broken = [seed.seed for seed in evidence.seeds if not math.isfinite(seed.a.accuracy)]
        if not broken or not all(math.isfinite(seed.b.accuracy) for seed in evidence.seeds):
            return None
        reason = f"the reference's accuracy with seed {broken[0]} is not a number"
    return "not_comparable", f"cannot be compared: {reason}"


def _measured(evidence: CellEvidence, cells: int, check: Check) -> Verdict:
    speed = find_speed(evidence.pairs, cells, check.margins)
    accuracy = find_accuracy(evidence.seeds, cells, check.margins, evidence.min_accuracy)
    missed = _missed(evidence, evidence.seeds)
    kind, text = _joint(evidence, speed, accuracy, cells, check)
    if missed:
        kind, text = "failed", f"failed: {missed}"
    numbers = accuracy is not None and math.isfinite(accuracy.a) and math.isfinite(accuracy.b)
    return Verdict(
        cell=evidence.cell,
        kind=kind,
        text=_sentence(evidence, text),
        speed=speed,
        accuracy=accuracy if numbers else None,
        advisories=_advisories(evidence.seeds),
    )


def _joint(
    evidence: CellEvidence, speed: SpeedFinding | None, accuracy: AccuracyFinding | None, cells: int, check: Check
) -> Ruling:
    """Accuracy first; then what is worse than undecided, undecided, and what is better."""
    margins = check.margins
    if accuracy is not None and accuracy.decision == "fail":
        return "regression", f"is {words.less_accurate(accuracy, margins)}{_beside(speed)}"
    if speed is not None and speed.decision == "fail":
        return "regression", f"is {words.slower(speed, margins)}"
    if speed is None or accuracy is None or "undecided" in (speed.decision, accuracy.decision):
        return "inconclusive", _undecided(evidence, speed, accuracy, cells, margins)
    equal = words.not_less_accurate(accuracy, margins)
    if speed.decision == "improvement":
        return "improvement", f"is {words.speed(speed)}; accuracy: {equal}"
    return "pass", f"passes; speed: {words.not_slower(speed, margins)}; accuracy: {equal}"


def _beside(speed: SpeedFinding | None) -> str:
    """What is said of the speed of a cell whose accuracy failed."""
    if speed is None or speed.decision in ("undecided", "pass"):
        return ""
    found = words.speed(speed)
    return f"; it is also {found}" if speed.decision == "fail" else f"; that it is {found} does not count"


def _undecided(
    evidence: CellEvidence,
    speed: SpeedFinding | None,
    accuracy: AccuracyFinding | None,
    cells: int,
    margins: Margins,
) -> str:
    """What is not decided, and what is."""
    parts = []
    if speed is None or speed.decision == "undecided":
        parts.append(words.undecided_speed(speed, evidence.pairs, looks(cells, margins)[0]))
    else:
        parts.append(f"speed passes: {words.not_slower(speed, margins)}")
    if accuracy is None or accuracy.decision == "undecided":
        parts.append(words.undecided_accuracy(accuracy))
    else:
        parts.append(f"accuracy passes: {words.not_less_accurate(accuracy, margins)}")
    return f"is inconclusive; {'; '.join(parts)}"


def _missed(evidence: CellEvidence, seeds: Sequence[SeedPair | Solo]) -> str | None:
    """Why B fails whatever the reference does."""
    return breach(seeds, evidence.min_accuracy) or _too_slow(evidence, seeds)


def _too_slow(evidence: CellEvidence, seeds: Sequence[SeedPair | Solo]) -> str | None:
    """Why B misses its floor of throughput."""
    floor, rate = evidence.min_train_samples_per_s, _samples_per_s(evidence, seeds)
    if floor is None or rate is None or rate >= floor:
        return None
    return f"its {figures.significant(rate)} training samples/s are under the floor {floor:g} of the matrix"


def _samples_per_s(evidence: CellEvidence, seeds: Sequence[SeedPair | Solo]) -> float | None:
    """All of B's samples over all its seconds, of the pairs' blocks. Before there are any, of the trainings, whose
    deterministic algorithms may be slower ones."""
    rounds = [one for pair in evidence.pairs for one in pair.rounds]
    seconds = math.fsum(one.seconds[1] for one in rounds)
    if seconds > 0:
        return evidence.cell.batch_size * sum(one.steps[1] for one in rounds) / seconds
    rates = [seed.b.train_samples_per_s for seed in seeds]
    return statistics.harmonic_mean(rates) if rates else None


def _advisories(seeds: Sequence[SeedPair]) -> tuple[Advisory, ...]:
    """Those that were measured on both sides: the medians over the seeds that have both."""
    found = []
    for name, (unit, figure) in ADVISORIES.items():
        both = [(figure(seed.a), figure(seed.b)) for seed in seeds]
        known = [(a, b) for a, b in both if a is not None and b is not None]
        if known:
            a, b = (statistics.median(side) for side in zip(*known, strict=True))
            found.append(Advisory(name=name, unit=unit, a=a, b=b))
    return tuple(found)


def _outcome(evidence: CellEvidence, side: Side) -> Failure | Skip | None:
    """What went wrong on a side."""
    return next((fault.outcome for fault in evidence.faults if fault.side == side), None)


def _sentence(evidence: CellEvidence, predicate: str) -> str:
    return f"{plain(evidence.cell.id)} {predicate}"
