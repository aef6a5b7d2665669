"""The evidence of a check -> a verdict per cell, in words for a person who knows no statistics -> an exit code. Pure.

A stored check is judged again identically. What stops a cell comes first: a failure, a missed floor, a cell that is
gone. A speed verdict counts only where the accuracy has not failed. A missed floor of ``expect`` is ``failed``, not a
``regression``: it is absolute, the reference may miss it too; both exit with 3.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, get_args

from msgspec import field
from msgspec.structs import replace

from mnist_bench import figures
from mnist_bench.gate import samples
from mnist_bench.gate.evidence import CellEvidence, Check, Margins, Record, SideEvidence
from mnist_bench.gate.samples import AccuracyFinding, SpeedFinding
from mnist_bench.records import Cell
from mnist_bench.stats import Interval
from mnist_bench.table import listed, plain

ExitCode = Literal[0, 3, 4, 5, 130]
# Worst first.
VerdictKind = Literal["failed", "missing", "regression", "inconclusive", "not_comparable", "improvement", "new", "pass"]
WORST_FIRST: tuple[VerdictKind, ...] = get_args(VerdictKind)
Ruling = tuple[VerdictKind, str]  # and why, as the predicate of a sentence about the cell

# By exit code: the verdict on the whole, and what the code says (docs/cli.md).
OVERALL: dict[int, tuple[str, str]] = {
    0: ("PASS", "nothing is slower or less accurate"),
    3: ("FAIL", "something is slower, less accurate, missing or broken"),
    4: ("INCONCLUSIVE", "too few samples for a verdict; that is no pass"),
    5: ("NOTHING COMPARED", "no cell could be compared"),
    130: ("INTERRUPTED", "interrupted before all of it was measured"),
}
SIDES = {"against": ("the reference", "the change"), "baseline": ("the baseline", "the run")}
Said = tuple[str, str]  # how much, and which way
FAR = 2.0  # a speed that differs by such a factor is said as one


class Verdict(Record, frozen=True, kw_only=True):
    """The verdict of one cell. ``text`` is a sentence about it."""

    cell: Cell
    kind: VerdictKind
    text: str
    speed: SpeedFinding | None = None
    accuracy: AccuracyFinding | None = None
    memory: dict[str, SpeedFinding] = field(default_factory=dict)  # by the figure's key


def judge(check: Check) -> tuple[Verdict, ...]:
    """The verdict of every cell of a check, in its order."""
    cells = max(1, cells_compared(check.cells))
    return tuple(verdict_of(one, cells, check.mode) for one in check.cells)


def cells_compared(cells: Iterable[CellEvidence]) -> int:
    """K of the tests: the cells that are on both sides and do not differ.

    A cell that fails or is skipped on the way counts all the same: how often is looked, and at which level, may not
    hang on what was found.
    """
    return sum(one.a is not None and one.b is not None and not one.differences for one in cells)


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


def verdict_of(one: CellEvidence, cells: int, mode: str) -> Verdict:
    """Of one cell, of so many that are compared."""
    speed, accuracy, memory = None, None, dict[str, SpeedFinding]()
    if one.comparable and one.a and one.b:
        accuracy = samples.find_accuracy(one.seeds, cells, one.margins)
        if mode == "against":
            nodes = [pair.node for pair in one.pairs] if any(pair.node for pair in one.pairs) else []
            speed = samples.find_speed([pair.log_ratio for pair in one.pairs], cells, one.margins, nodes)
            memory = samples.find_memory(one.pairs, cells, one.margins)
        elif not one.why_no_ratio:
            speed = samples.find_shift(one.a.ratios, one.b.ratios, cells, one.margins)
    found = Verdict(cell=one.cell, kind="pass", text="", speed=speed, accuracy=accuracy, memory=memory)
    kind, text = _failed(one, mode) or _apart(one, mode) or _joint(one, found, cells, mode)
    return replace(found, kind=kind, text=f"{plain(one.cell.id)} {text}")


def _failed(one: CellEvidence, mode: str) -> Ruling | None:
    """Of a cell that failed, or missed a floor, whatever became of A."""
    if one.b is None:
        return None
    if one.b.failed:
        too = f"; {SIDES[mode][0]} failed too" if one.a and one.a.failed else ""
        return "failed", f"failed ({one.b.status}): {plain(one.b.reason)}{too}"
    missed = _missed_accuracy(one, one.b)
    floor, rate = one.min_train_samples_per_s, one.samples_per_s
    if not missed and floor is not None and rate is not None and rate < floor:
        missed = f"its {figures.significant(rate)} training samples/s are under the floor {floor:g}"
    return ("failed", f"failed: {missed} of the matrix") if missed else None


def _missed_accuracy(one: CellEvidence, b: SideEvidence) -> str:
    """Held, as in a run, over the matrix's own seeds; sooner where those to come could not mend it."""
    floor, known = one.min_accuracy, {each.seed: each.accuracy for each in b.trainings}
    if floor is None or not known:
        return ""
    mean = statistics.fmean(known.get(seed, 1.0) for seed in one.floor_seeds)
    if mean >= floor:
        return ""
    if not one.seeds_awaited:
        return f"its accuracy {mean:.4f} is under the floor {floor:g}"
    seeds = ", ".join(f"{accuracy:.4f} with seed {seed}" for seed, accuracy in known.items() if seed in one.floor_seeds)
    return f"its accuracy, {seeds}, can no more reach the floor {floor:g}"


def _apart(one: CellEvidence, mode: str) -> Ruling | None:
    """Of a cell that is on one side alone, or whose sides differ, or of which a side has no figures."""
    (name, change), a, b = SIDES[mode], one.a, one.b
    if b is None:
        return "missing", f"is missing: {name} has this cell, {change} has not"
    if a is None and b.status == "ok":
        if not b.trainings or one.seeds_awaited:
            return "inconclusive", "is new, and was not trained in time: go on with --resume and a larger --budget"
        return "new", f"is new: {name} has no such cell"
    reason = "; ".join(map(plain, one.differences))
    if b.status == "skipped":
        if mode == "against" and a and a.status == "ok" and not reason:
            gone = f"{change} skips it, unlike {name}: {plain(b.reason)}"
            return "missing", f"is no longer executed here: {gone}"
        state = "lacks it" if a is None else "skipped it too" if a.status == "skipped" else "measured it"
        reason = f"it is skipped here, and {name} {state}: {plain(b.reason)}"
    elif a and a.status != "ok" and not reason:
        reason = f"{name} {'skipped it' if a.status == 'skipped' else f'failed ({a.status})'}: {plain(a.reason)}"
    return ("not_comparable", f"cannot be compared: {reason}") if reason else None


def _joint(one: CellEvidence, found: Verdict, cells: int, mode: str) -> Ruling:
    """Accuracy first; then what is worse than undecided, undecided, and what is better."""
    changed, margins, speed, accuracy = _changed_margins(one), one.margins, found.speed, found.accuracy
    if accuracy is not None and accuracy.decision == "fail":
        return "regression", f"is {_less_accurate(accuracy, margins)}{changed}"
    if speed is not None and speed.decision == "fail":
        return "regression", f"is {_measured(speed, one)}; up to {percent(margins.margin)} % is tolerated{changed}"
    limit = margins.memory or 0
    if grown := _memory(one, found, cells, "fail"):
        return "regression", f"takes more memory: {grown}; up to {percent(limit)} % is tolerated{changed}"
    passes = {}
    if speed is not None and speed.decision != "undecided":
        passes["speed"] = f"a slow-down of {percent(margins.detect)} % is ruled out: measured {_measured(speed, one)}"
    if accuracy is not None and accuracy.decision == "pass":
        ruled_out = f"a drop of {_points(margins.drop_detect)[0]} is ruled out: measured "
        passes["accuracy"] = f"{ruled_out * (accuracy.identical < accuracy.seeds)}{_accuracy_words(accuracy)}"
    if kept := _memory(one, found, cells, "pass", "improvement"):
        passes["memory"] = f"{percent(2 * limit)} % more is ruled out: {kept}"
    open_ = [*_undecided_speed(one, speed, cells, mode), *_undecided_accuracy(one, accuracy)]
    if unknown := _memory(one, found, cells, "undecided"):
        open_.append(f"its memory is not decided: {unknown}")
    elif limit and mode == "against" and not found.memory:
        open_.append("its memory was not measured")
    if open_:
        decided = [f"{name} passes: {words}" for name, words in passes.items()]
        return "inconclusive", f"is inconclusive; {'; '.join([*open_, *decided])}{changed}"
    if faster := speed is not None and speed.decision == "improvement":
        del passes["speed"]
    equal = "; ".join(f"{name}: {words}" for name, words in passes.items()) + changed
    if speed is None:
        return "pass", f"passes; {equal}; its own time is what others are held against, and not judged"
    if faster:
        stale = "; the baseline is stale: update it" if mode == "baseline" else ""
        return "improvement", f"is {_measured(speed, one)}; {equal}{stale}"
    return "pass", f"passes; {equal}"


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def counted(verdicts: Sequence[Verdict]) -> str:
    """``1 regression, 2 inconclusive, 17 pass``, worst first."""
    counts = Counter(one.kind for one in verdicts)
    return ", ".join(f"{counts[one]:,} {one.replace('_', ' ')}" for one in WORST_FIRST if counts[one]) or "no cell"


def overall(verdicts: Sequence[Verdict], code: int) -> str:
    """``FAIL: 1 regression, 19 pass. Exit code 3: something is slower, ...``."""
    word, meaning = OVERALL[code]
    return f"{word}: {counted(verdicts)}. Exit code {code}: {meaning}."


def percent(fraction: float) -> str:
    """One decimal below 10: ``12``, ``4.2``, ``3``."""
    return f"{100 * fraction:,.0f}" if fraction >= 0.0995 else f"{100 * fraction:.1f}".removesuffix(".0")


def change(ratio: float) -> str:
    """A speed against another.

    >>> [change(ratio) for ratio in (1.0004, 1.0994, 1.25, 1.99)]
    ['as fast', '9.9 % faster', '25 % faster', '99 % faster']
    >>> change(0.5), change(1e6)
    ('2.0x slower', '1,000,000x faster')
    """
    return _change(_speed(ratio), "as fast")


def _speed(ratio: float) -> Said:
    factor = max(ratio, 1 / ratio)
    size = f"{figures.significant(factor, 2)}x" if factor >= FAR else f"{percent(factor - 1)} %"
    return size, "faster" if ratio >= 1 else "slower"


def _points(change: float) -> Said:
    return f"{abs(100 * change):.2f} pp", "less accurate" if change < 0 else "more accurate"


def _change(said: Said, same: str) -> str:
    return same if said[0] in ("0 %", "0.00 pp") else " ".join(said)


def _spread(interval: Interval, say: Callable[[float], Said], same: str, count: str) -> str:
    """``12 % slower (95 % interval 14 % to 10 %, 16 pairs)``."""
    estimate = _change(say(interval.estimate), same)
    if interval.low is None or interval.high is None:
        return f"{estimate} ({count})"
    (low, way), (high, other) = say(interval.low), say(interval.high)
    ends = f"{low} to {high}" if way == other else f"{low} {way} to {high} {other}"
    return f"{estimate} (95 % interval {ends}, {count})"


def _speed_words(found: SpeedFinding) -> str:
    return _spread(found.ratio, _speed, "as fast", _count(found.count, found.unit))


def _accuracy_words(found: AccuracyFinding) -> str:
    differing, seeds = found.seeds - found.identical, _count(found.seeds, "seed")
    if not differing:
        return f"equal predictions ({seeds})"
    if found.identical:
        seeds = f"over the {differing} of {seeds} whose predictions differ"
    return _spread(found.change, _points, "as accurate", seeds)


def _changed_margins(one: CellEvidence) -> str:
    before, now = one.margins_before, one.margins
    if before is None:
        return ""
    words = [
        f"{percent(each.margin)} % tolerated and {percent(each.detect)} % excluded"
        + (f", {percent(each.memory)} % more memory tolerated" if each.memory is not None else "")
        for each in (before, now)
    ]
    return f"; the change moves its margins: {words[0]} before, {words[1]} now"


def _measured(speed: SpeedFinding, one: CellEvidence) -> str:
    found = _speed_words(speed)
    return f"{found} against the baseline, relative to {plain(one.b.reference)}" if one.b and one.b.reference else found


def _less_accurate(found: AccuracyFinding, margins: Margins) -> str:
    whole = f" over all {found.seeds}" if found.identical else ""
    both = f"{100 * found.a:.2f} % before, {100 * found.b:.2f} % now{whole}"
    return f"{_accuracy_words(found)}: {both}; up to {_points(margins.drop)[0]} is tolerated"


def _undecided_speed(one: CellEvidence, speed: SpeedFinding | None, cells: int, mode: str) -> Iterator[str]:
    """What is not known, and what would help; nothing where speed is decided, or not to be judged."""
    if one.why_no_ratio:
        yield f"its speed cannot be judged: {plain(one.why_no_ratio)}"
    elif speed is None and mode == "against":
        first, *_ = samples.looks(cells, one.margins)
        yield f"its speed was not measured ({_count(first, 'pair')} needed for a first look)"
    elif speed is not None and speed.decision == "undecided":
        every = noise(one)
        disturbed = f"; {sum(every)} of {_count(len(every), speed.unit)} disturbed by other work on the machine"
        measured = f"measured {_measured(speed, one)}, {_more(one, speed, cells)}"
        if speed.slower_on:
            measured += (
                f"; it would pass, but is {percent(one.margins.detect)} % slower on {listed(speed.slower_on, 3)}"
            )
        yield f"its speed is not decided: {measured}{disturbed if any(every) else ''}"


def _more(one: CellEvidence, speed: SpeedFinding, cells: int) -> str:
    """What would decide."""
    if one.a and one.b and speed.unit == "session":
        needed = samples.seeds_needed(one.a.ratios, one.b.ratios, cells, one.margins)
        return f"about {needed} seeds in both would do" if needed else "too noisy to tell"
    if speed.next_look is None:
        return f"after the last look at {_count(speed.count, 'pair')}: too noisy to tell, try a quieter machine"
    return f"{_count(speed.next_look - speed.count, 'more pair')} to the next look, at {speed.next_look}"


def _memory(one: CellEvidence, found: Verdict, cells: int, *decisions: str) -> str:
    """``peak memory of the host 12 % more (95 % interval 10 % to 14 %, 16 pairs)``, of each peak so decided."""
    words = []
    for key, each in found.memory.items():
        if each.decision in decisions:
            more = f", {_more(one, each, cells)}" if each.decision == "undecided" else ""
            name, count = figures.HELP[key].partition(",")[0], _count(each.count, each.unit)
            words.append(f"{name} {_spread(each.ratio, _growth, 'as before', count)}{more}")
    return "; ".join(words)


def _growth(ratio: float) -> Said:
    return f"{percent(abs(ratio - 1))} %", "more" if ratio >= 1 else "less"


def _undecided_accuracy(one: CellEvidence, found: AccuracyFinding | None) -> Iterator[str]:
    if found is None:
        yield "its accuracy was not measured"
    elif found.decision == "undecided":
        more = f"about {_count(found.more_seeds, 'more seed')} needed" if found.more_seeds else "no look is left"
        yield f"its accuracy is not decided: measured {_accuracy_words(found)}, {more}"
    if one.seeds_awaited:
        seeds = listed([str(seed) for seed in one.seeds_awaited])
        yield f"its floor {one.min_accuracy:g} of accuracy waits for the matrix's other seeds: {seeds}"


def noise(one: CellEvidence) -> list[bool]:
    """Of each pair of a cell, and of each session that its ratios come from: was it disturbed?"""
    sessions = [each for side in (one.a, one.b) if side for each in side.ratios]
    return [bool(pair.noisy) for pair in one.pairs] + [session.noisy for session in sessions]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
