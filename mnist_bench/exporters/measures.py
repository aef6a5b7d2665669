"""The figures that continuous benchmarking follows from commit to commit, for every format of that kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mnist_bench.rows import Row

Better = Literal["smaller", "bigger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A figure and, where known, the bounds around it."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure of a cell.

    Args:
        title: in words; unit: of ``read`` and of charts.
        better: which way is an improvement.
        slug: the name of the measure in Bencher; ``slug_scale`` turns the unit into that of the slug.
        read: the reading of a row; None where it was not measured.
    """

    title: str
    unit: str
    better: Better
    slug: str
    read: Callable[[Row], Reading | None]
    slug_scale: float = 1.0


def _plain(value: float | None) -> Reading | None:
    return None if value is None else Reading(value=value)


def _throughput(row: Row) -> Reading | None:
    if row.train_samples_per_s is None:
        return None
    return Reading(value=row.train_samples_per_s, low=row.train_samples_per_s_low, high=row.train_samples_per_s_high)


def _accuracy(row: Row) -> Reading | None:
    """With the standard deviation over seeds around it."""
    mean, deviation = row.test_accuracy, row.test_accuracy_std
    if mean is None or deviation is None:
        return _plain(mean)
    return Reading(value=mean, low=mean - deviation, high=mean + deviation)


# latency (nanoseconds) and throughput (operations per second) are Bencher's own measures; the other slugs name their
# unit, since Bencher knows none for a measure that it meets for the first time.
MEASURES = (
    Measure(
        title="training step, median",
        unit="ms",
        better="smaller",
        slug="latency",
        slug_scale=1e6,
        read=lambda row: _plain(row.step_ms_p50),
    ),
    Measure(
        title="training epoch",
        unit="s",
        better="smaller",
        slug="epoch-seconds",
        read=lambda row: _plain(row.epoch_s),
    ),
    Measure(
        title="compilation",
        unit="s",
        better="smaller",
        slug="compile-seconds",
        read=lambda row: _plain(row.compile_s),
    ),
    Measure(
        title="host memory, peak",
        unit="MiB",
        better="smaller",
        slug="host-peak-mib",
        read=lambda row: _plain(row.host_peak_mib),
    ),
    Measure(
        title="device memory, peak",
        unit="MiB",
        better="smaller",
        slug="device-peak-mib",
        read=lambda row: _plain(row.device_peak_mib),
    ),
    Measure(title="training throughput", unit="samples/s", better="bigger", slug="throughput", read=_throughput),
    Measure(
        title="evaluation throughput",
        unit="samples/s",
        better="bigger",
        slug="eval-samples-per-second",
        read=lambda row: _plain(row.eval_samples_per_s),
    ),
    Measure(title="test accuracy", unit="fraction", better="bigger", slug="test-accuracy", read=_accuracy),
)
