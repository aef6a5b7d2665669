"""What a verdict says to a person who knows no statistics: findings -> phrases. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mnist_bench.gate.records import AccuracyFinding, Margins, ProcessPair, SpeedFinding
from mnist_bench.stats import Interval


def speed(finding: SpeedFinding) -> str:
    """``12 % slower (95 % interval 10-14 %, 16 pairs)``. Slower by more time a step, faster by more steps a second."""
    count = _count(finding.pairs, finding.unit)
    return _with_interval(_speed(finding.ratio.estimate), _speed_bounds(finding.ratio), count)


def accuracy(finding: AccuracyFinding) -> str:
    """``0.62 pp less accurate (95 % interval 0.41-0.83 pp, 9 seeds)``."""
    differing = finding.seeds - finding.identical
    seeds = _count(finding.seeds, "seed")
    if not differing:
        return f"equal predictions ({seeds})"
    if finding.identical:
        seeds = f"over the {differing} of {seeds} whose predictions differ"
    return _with_interval(_accuracy(finding.change.estimate), _accuracy_bounds(finding.change), seeds)


def slower(finding: SpeedFinding, margins: Margins) -> str:
    return f"{speed(finding)}; up to {percent(margins.margin)} % is tolerated"


def less_accurate(finding: AccuracyFinding, margins: Margins) -> str:
    whole = f" over all {finding.seeds}" if finding.identical else ""
    figures = f"{100 * finding.a:.2f} % before, {100 * finding.b:.2f} % now{whole}"
    return f"{accuracy(finding)}: {figures}; up to {_points(margins.drop)} pp is tolerated"


def not_slower(finding: SpeedFinding, margins: Margins) -> str:
    """Of a speed that passes: what is ruled out, and what was measured."""
    return f"a slow-down of {percent(margins.detect)} % is ruled out: measured {speed(finding)}"


def not_less_accurate(finding: AccuracyFinding, margins: Margins) -> str:
    if finding.seeds == finding.identical:
        return accuracy(finding)
    return f"a drop of {_points(margins.drop_detect)} pp is ruled out: measured {accuracy(finding)}"


def undecided_speed(finding: SpeedFinding | None, pairs: Sequence[ProcessPair], first_look: int) -> str:
    """What the interval can still hold, and how many pairs are missing."""
    if finding is None:
        return f"its speed was not measured ({_count(first_look, 'pair')} needed for a first look)"
    if finding.next_look is None:
        more = f"after the last look at {_count(finding.pairs, 'pair')}: too noisy to tell, try a quieter machine"
    else:
        more = f"{_count(finding.next_look - finding.pairs, 'more pair')} to the next look, at {finding.next_look}"
    disturbed = sum(bool(pair.noisy) for pair in pairs)
    noise = f"; {disturbed} of {_count(len(pairs), 'pair')} disturbed by other work on the machine" if disturbed else ""
    return f"its speed is not decided: measured {speed(finding)}, {more}{noise}"


def undecided_accuracy(finding: AccuracyFinding | None) -> str:
    if finding is None:
        return "its accuracy was not measured"
    more = f"about {_count(finding.more_seeds, 'more seed')} needed" if finding.more_seeds else "no look is left"
    return f"its accuracy is not decided: measured {accuracy(finding)}, {more}"


def _with_interval(change: str, bounds: str, count: str) -> str:
    return f"{change} (95 % interval {bounds}, {count})" if bounds else f"{change} ({count})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _speed(ratio: float) -> str:
    size = percent(_size(ratio))
    return "as fast" if size == "0" else f"{size} % {_way(ratio)}"


def _speed_bounds(ratio: Interval) -> str:
    if ratio.low is None or ratio.high is None:
        return ""
    if ratio.low >= 1 or ratio.high <= 1:
        sizes = sorted((_size(ratio.low), _size(ratio.high)))
        ends = [percent(size) for size in sizes]
        return "-".join(ends if ends[0] != ends[1] else [f"{100 * size:.1f}" for size in sizes]) + " %"
    return " to ".join(f"{percent(_size(end))} % {_way(end)}" for end in (ratio.low, ratio.high))


def _size(ratio: float) -> float:
    """Of a change of speed; turned round, a ratio is of the same size."""
    return ratio - 1 if ratio >= 1 else 1 / ratio - 1


def _way(ratio: float) -> str:
    return "slower" if ratio >= 1 else "faster"


def percent(fraction: float) -> str:
    """One decimal below 10: ``12``, ``4.2``, ``3``."""
    return f"{100 * fraction:,.0f}" if fraction >= 0.0995 else f"{100 * fraction:.1f}".removesuffix(".0")


def _accuracy(change: float) -> str:
    size = _points(change)
    return "as accurate" if size == "0.00" else f"{size} pp {'less' if change < 0 else 'more'} accurate"


def _accuracy_bounds(change: Interval) -> str:
    if change.low is None or change.high is None:
        return ""
    if change.low >= 0 or change.high <= 0:
        return "-".join(_points(end) for end in sorted((change.low, change.high), key=abs)) + " pp"
    return f"{_points(change.low)} pp less to {_points(change.high)} pp more"


def _points(fraction: float) -> str:
    """The size in percentage points."""
    return f"{abs(100 * fraction):.2f}"
