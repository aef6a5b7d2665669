"""Where a GPU overtakes the CPU, and when a compilation has paid for itself: pure arithmetic on speed-ups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mnist_bench.comparisons import BatchPoint, BreakEven, Crossover
from mnist_bench.records import Cell
from mnist_bench.speedups import SpeedUp

UNKNOWN = BatchPoint(where="unknown")


def crossover(model: str, device: str, variant: str, ratios: Sequence[tuple[int, SpeedUp]]) -> Crossover:
    """The batch size from which on ``device`` is faster: where ln(ratio) rises through 0.

    Between two measured batch sizes ln(ratio) is taken as linear in ln(batch size). The interval is that of the batch
    sizes at which the ratio's own interval, interpolated alike, holds 1: it covers what the ratios' intervals cover,
    not the error of the interpolation.

    Args:
        ratios: (batch size, speed-up of the device over the CPU), in any order.

    Returns:
        ``unknown`` with a reason where there is no ratio, or where the device is faster at a batch size and slower at a
        larger one; unknown ends where a ratio has no interval.
    """
    points = sorted(ratios, key=lambda point: point[0])
    estimate, low, high, reason = UNKNOWN, UNKNOWN, UNKNOWN, "no batch size was timed on both"
    if points:
        sizes = [size for size, _ in points]
        logs = [one.log for _, one in points]
        estimate, reason = _estimate(sizes, [log.estimate for log in logs])
        lows = [log.low for log in logs if log.low is not None]
        highs = [log.high for log in logs if log.high is not None]
        if estimate.where == "unknown":
            pass
        elif len(lows) == len(highs) == len(points):
            low, high = _first_rise(sizes, highs), _last_rise(sizes, lows)
        else:
            reason = "a ratio has no interval: time more seeds"
    return Crossover(
        model=model,
        device=device,
        variant=variant,
        smallest=points[0][0] if points else None,
        largest=points[-1][0] if points else None,
        estimate=estimate,
        low=low,
        high=high,
        reason=reason,
    )


def break_even(
    cell: Cell, reference: Cell, speed: SpeedUp, *, compile_s: float, reference_step_s: float, samples_per_epoch: float
) -> BreakEven:
    """The steps n at which ``compile_s`` + n steps of this cell take as long as n steps of the reference.

    Args:
        speed: of this cell over the reference, in seconds per step.
        compile_s: seconds that this cell's compilation costs beyond the reference's.
        reference_step_s: seconds per step of the reference.
        samples_per_epoch: images that an epoch trains on.
    """
    line = BreakEven(cell=cell, reference=reference, compile_s=compile_s, verdict="never")
    if speed.low is not None and speed.high is not None and speed.low <= 1 <= speed.high:
        return replace(line, verdict="unproven")
    if speed.ratio <= 1:
        return line

    def steps_at(ratio: float | None) -> float | None:
        return None if ratio is None else max(compile_s, 0.0) / (reference_step_s * (1 - 1 / ratio))

    def times(steps: float | None, each: float) -> float | None:
        return None if steps is None else steps * each

    steps, low, high = steps_at(speed.ratio), steps_at(speed.high), steps_at(speed.low)
    epoch, second = cell.batch_size / samples_per_epoch, reference_step_s
    return replace(
        line,
        verdict="after",
        steps=steps,
        steps_low=low,
        steps_high=high,
        epochs=times(steps, epoch),
        epochs_low=times(low, epoch),
        epochs_high=times(high, epoch),
        seconds=times(steps, second),
        seconds_low=times(low, second),
        seconds_high=times(high, second),
    )


def _estimate(sizes: Sequence[int], logs: Sequence[float]) -> tuple[BatchPoint, str]:
    faster = [log > 0 for log in logs]
    if faster != sorted(faster):
        return UNKNOWN, "faster at a batch size, but not at a larger one: there is no one crossover"
    return _first_rise(sizes, logs), ""


def _first_rise(sizes: Sequence[int], logs: Sequence[float]) -> BatchPoint:
    """The smallest batch size from which the line rises above 0."""
    if logs[0] > 0:
        return BatchPoint(where="below")
    rises = _rises(sizes, logs)
    return rises[0] if rises else BatchPoint(where="above")


def _last_rise(sizes: Sequence[int], logs: Sequence[float]) -> BatchPoint:
    """The batch size from which on the line stays above 0."""
    if logs[-1] <= 0:
        return BatchPoint(where="above")
    rises = _rises(sizes, logs)
    return rises[-1] if rises else BatchPoint(where="below")


def _rises(sizes: Sequence[int], logs: Sequence[float]) -> list[BatchPoint]:
    """Where the line between neighbours goes from 0 or less to more."""
    steps = zip(sizes, sizes[1:], logs, logs[1:], strict=False)
    return [
        BatchPoint(where="at", batch_size=math.exp(math.log(a) + before / (before - after) * math.log(b / a)))
        for a, b, before, after in steps
        if before <= 0 < after
    ]
