"""What every output says alike: the order of the cells, figures in words, and the verdict on the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mnist_bench import figures
from mnist_bench.gate.records import AccuracyFinding, Advisory, CellEvidence, Check, SideInfo, Verdict, VerdictKind
from mnist_bench.gate.words import percent
from mnist_bench.records import Cell
from mnist_bench.table import listed, shortened

WORST_FIRST: tuple[VerdictKind, ...] = (
    "failed",
    "missing",
    "regression",
    "inconclusive",
    "not_comparable",
    "improvement",
    "new",
    "pass",
)
# By exit code: the verdict on the whole, and what the code says (docs/cli.md).
OVERALL: dict[int, tuple[str, str]] = {
    0: ("PASS", "nothing is slower or less accurate"),
    1: ("ERROR", "the program failed"),
    3: ("FAIL", "something is slower, less accurate, missing or broken"),
    4: ("INCONCLUSIVE", "too few samples for a verdict; that is no pass"),
    5: ("NOTHING COMPARED", "no cell could be compared"),
    130: ("INTERRUPTED", "interrupted; what was finished is kept"),
}
CHANGED_FILES = 5  # named in a head
LONGEST_FILE = 100  # characters of such a name


def sorted_worst_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """By kind, then the slowest, then by name."""
    return sorted(verdicts, key=lambda one: (WORST_FIRST.index(one.kind), -_ratio(one), one.cell))


def kind(verdict: Verdict) -> str:
    """``not comparable``: the kind without its underscore."""
    return verdict.kind.replace("_", " ")


def counted(verdicts: Sequence[Verdict]) -> str:
    """``1 regression, 2 inconclusive, 17 pass``, worst first."""
    counts = Counter(one.kind for one in verdicts)
    return ", ".join(f"{counts[one]:,} {one.replace('_', ' ')}" for one in WORST_FIRST if counts[one]) or "no cell"


def overall(verdicts: Sequence[Verdict], code: int) -> str:
    """``FAIL: 1 regression, 19 pass. Exit code 3: something is slower, ...``."""
    word, meaning = OVERALL[code]
    return f"{word}: {counted(verdicts)}. Exit code {code}: {meaning}."


def speed(verdict: Verdict) -> str:
    """``12 % slower (10-14 %)``: seconds per step of B against those of A; empty where none were compared."""
    return _with(slower(verdict), slower_bounds(verdict))


def accuracy(verdict: Verdict) -> str:
    """``-0.31 pp (-0.40 to -0.22)``: percentage points, B less A; ``identical`` where every prediction is."""
    return _with(accuracy_change(verdict), accuracy_bounds(verdict))


def slower(verdict: Verdict) -> str:
    """``12 % slower`` by more time a step, ``5.1 % faster`` by more steps a second, or ``as fast``."""
    if verdict.speed is None:
        return ""
    change = _slow_down(verdict.speed.ratio.estimate)
    size = percent(abs(change))
    return "as fast" if size == "0" else f"{size} % {'slower' if change > 0 else 'faster'}"


def slower_bounds(verdict: Verdict) -> str:
    """``10-14 %`` where all of the interval is slower, or faster; else ``-1 to +13 %``; empty without bounds."""
    if verdict.speed is None or verdict.speed.ratio.low is None or verdict.speed.ratio.high is None:
        return ""
    bounds = [_slow_down(verdict.speed.ratio.low), _slow_down(verdict.speed.ratio.high)]
    if bounds[0] >= 0 or bounds[1] <= 0:
        return "-".join(percent(size) for size in sorted(map(abs, bounds))) + " %"
    return f"-{percent(-bounds[0])} to +{percent(bounds[1])} %"


def accuracy_change(verdict: Verdict) -> str:
    """``-0.31 pp`` or ``identical``."""
    found = verdict.accuracy
    if found is None:
        return ""
    return "identical" if _identical(found) else f"{_signed(100 * found.change.estimate, 2)} pp"


def accuracy_bounds(verdict: Verdict) -> str:
    """``-0.40 to -0.22``; empty without bounds, and where all is identical."""
    found = verdict.accuracy
    if found is None or _identical(found) or found.change.low is None or found.change.high is None:
        return ""
    return " to ".join(_signed(100 * bound, 2) for bound in (found.change.low, found.change.high))


def advisory(one: Advisory) -> str:
    """``10.4 → 11.0 (+6 %)``."""
    change = f" ({_signed(100 * (one.b / one.a - 1), 0)} %)" if one.a > 0 else ""
    return f"{figures.significant(one.a)} → {figures.significant(one.b)}{change}"


def unit(check: Check) -> str:
    """What is counted: the header of its column."""
    return "pairs" if check.mode == "against" else "sessions"


def pairs(verdict: Verdict) -> str:
    return "" if verdict.speed is None else str(verdict.speed.pairs)


def seeds(verdict: Verdict) -> str:
    return "" if verdict.accuracy is None else str(verdict.accuracy.seeds)


def noisy_pairs(check: Check) -> dict[Cell, int]:
    """How many pairs, or sessions of both sides, of each cell were disturbed, where any was."""
    return {one.cell: count for one in check.cells if (count := sum(_disturbed(one)))}


def noise(check: Check) -> str:
    """What is to be said of disturbed pairs, or sessions; empty without any."""
    every = [disturbed for one in check.cells for disturbed in _disturbed(one)]
    return f"† noisy: other work disturbed {sum(every):,} of {len(every):,} {unit(check)}" if any(every) else ""


def _disturbed(one: CellEvidence) -> list[bool]:
    """Of each pair of a cell, and of each session that its ratios come from."""
    sessions = (*one.ratios.a, *one.ratios.b) if one.ratios else ()
    return [bool(pair.noisy) for pair in one.pairs] + [session.noisy for session in sessions]


def unfinished(check: Check) -> str:
    """What is to be said of a check that is not complete; empty otherwise."""
    return "" if check.status == "complete" else f"The check is {check.status}: samples may be missing."


def title(check: Check) -> str:
    return f"Check {check.id}: {check.b.label} (B) against {check.a.label} (A)"


def facts(check: Check) -> list[str]:
    """The head: both sides, what was measured, and for how long."""
    ratio = "seconds per step" if check.mode == "against" else "seconds per step relative to eager"
    margins = check.margins
    return [
        f"A: {_side(check.a)}",
        f"B: {_side(check.b)}",
        f"Matrix {check.matrix_path}, data {check.dataset}, recipe {check.recipe}{_time(check)}",
        *filter(None, [unfinished(check)]),
        *check.notes,
        f"Speed: {ratio}, B against A, and its 95 % interval; {percent(margins.margin)} % slower is tolerated, "
        f"and a pass says that {percent(margins.detect)} % would have been seen.",
    ]


def _side(side: SideInfo) -> str:
    commit = f", commit {side.commit[:12]}" if side.commit else ""
    names = [shortened(name, LONGEST_FILE) for name in side.changed]
    changed = f", changed: {listed(names, CHANGED_FILES)}" if names else ""
    return f"{side.label}{commit}{changed}"


def _time(check: Check) -> str:
    if not check.spent_s:
        return ""  # a run against a baseline takes none
    budget = f" of {_minutes(check.budget_s)}" if check.budget_s is not None else ""
    return f"; {_minutes(check.spent_s)} min spent{budget}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:,.1f}".removesuffix(".0")


def _ratio(verdict: Verdict) -> float:
    return 1.0 if verdict.speed is None else verdict.speed.ratio.estimate


def _identical(found: AccuracyFinding) -> bool:
    return found.seeds > 0 and found.identical == found.seeds


def _slow_down(ratio: float) -> float:
    """The part by which a step takes longer; below 0, by which more steps are done in the same time."""
    return ratio - 1 if ratio >= 1 else 1 - 1 / ratio


def _with(estimate: str, bounds: str) -> str:
    return f"{estimate} ({bounds})" if bounds else estimate


def _signed(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:+,.{decimals}f}"  # + 0.0: no minus before a nought
