"""Trials and sessions to one row per cell: pure arithmetic. Figures come from the seeds that are ok."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from mnist_bench import stats
from mnist_bench.cells import reference_variant
from mnist_bench.classes import proven_class
from mnist_bench.records import (
    STATUSES,
    Cell,
    Floor,
    Manifest,
    Matrix,
    Measurement,
    Session,
    StepTimes,
    Trial,
    VariantClass,
)
from mnist_bench.rows import EpochRow, Figure, FloorResult, FloorVerdict, Row, columns
from mnist_bench.speedups import SessionIndex, SpeedUp, index_sessions, speed_up, weakest

__all__ = ["EpochRow", "FloorResult", "Row", "columns", "epoch_rows", "floors", "outline", "pending", "summarise"]

MIB = 1 << 20
TARGET_ACCURACY = 0.97  # of ``time_to_accuracy_s``

FIGURES: dict[Figure, str] = {"test_accuracy": "test accuracy", "train_samples_per_s": "training samples per second"}

TrialsByCell = Mapping[str, Sequence[Trial]]
Measured = Sequence[tuple[Trial, Measurement]]
Figures = dict[str, Any]  # fields of a Row, which is made once: to copy it for every few of them is slow


def summarise(manifest: Manifest, trials: Sequence[Trial], sessions: Sequence[Session]) -> tuple[Row, ...]:
    """One row per cell with a finished trial, in the order of the matrix; ``pending`` tells what is still to come."""
    by_cell, index = _by_cell(manifest, trials), index_sessions(sessions)
    reference = reference_variant(manifest.matrix)

    def figures(cell: Cell, ok: Measured) -> Figures:
        measurements = [measurement for _, measurement in ok]
        return {
            **_learning(measurements),
            **_throughput(measurements),
            **_costs(measurements),
            **_facts(cell, measurements, manifest.matrix),
            **_steps(ok, index),
            **_trust(cell, ok, by_cell, reference, index),
        }

    rows = [_row(own, figures) for own in by_cell.values() if own]
    return _with_speed_ups(rows, by_cell, reference, index)


def outline(manifest: Manifest, trials: Sequence[Trial], sessions: Sequence[Session]) -> tuple[Row, ...]:
    """The rows of ``summarise`` in a fraction of its time, with no more figures than a comparison takes from them:
    compile time, noise, class and doubts."""
    by_cell, index = _by_cell(manifest, trials), index_sessions(sessions)
    reference = reference_variant(manifest.matrix)

    def figures(cell: Cell, ok: Measured) -> Figures:
        compile_s = _median([measurement.compile_s for _, measurement in ok])
        return {"compile_s": compile_s, **_trust(cell, ok, by_cell, reference, index)}

    return tuple(_row(own, figures) for own in by_cell.values() if own)


def pending(manifest: Manifest, trials: Iterable[Trial]) -> tuple[str, ...]:
    """The ids of the trials that the run set out to do and has not finished."""
    done = {trial.id for trial in trials}
    return tuple(trial_id for trial_id in manifest.trials if trial_id not in done)


def epoch_rows(trials: Iterable[Trial]) -> tuple[EpochRow, ...]:
    """One row per epoch of the trials that are ok, in their order."""
    return tuple(row for trial, measurement in _measured(trials) for row in _epochs_of(trial, measurement))


def floors(matrix: Matrix, rows: Iterable[Row]) -> tuple[FloorResult, ...]:
    """Every floor of ``expect`` against every row that it matches; each must hold.

    A missing figure misses its floor, except that of a skipped cell: a machine without the device cannot hold it.
    """
    return tuple(
        result for row in rows for floor in matrix.expect if floor.matches(row.cell) for result in _against(floor, row)
    )


def _by_cell(manifest: Manifest, trials: Iterable[Trial]) -> TrialsByCell:
    by_cell: dict[str, list[Trial]] = {trial_id.rpartition("/s")[0]: [] for trial_id in manifest.trials}
    for trial in trials:
        by_cell.setdefault(trial.cell.id, []).append(trial)
    return by_cell


def _row(own: Sequence[Trial], figures: Callable[[Cell, Measured], Figures]) -> Row:
    """The row of a cell from its trials; ``figures`` are asked for where some are ok."""
    worst = max(own, key=lambda trial: STATUSES.index(trial.status))  # of several equally bad, the first
    ok = _measured(own)
    return Row(
        model=worst.cell.model,
        device=worst.cell.device,
        batch_size=worst.cell.batch_size,
        variant=worst.cell.variant,
        status=worst.status,
        reason=worst.reason,
        seeds=len(ok),
        dataset=worst.dataset,
        recipe=worst.recipe,
        dataset_sha256=worst.dataset_sha256,
        **(figures(worst.cell, ok) if ok else {}),
    )


def _learning(measurements: Sequence[Measurement]) -> Figures:
    final = [m.epochs.accuracy[-1] for m in measurements if m.epochs.accuracy]
    losses = [m.epochs.loss[-1] for m in measurements if m.epochs.loss]
    times = [_time_to_accuracy(m) for m in measurements]
    return {
        "test_accuracy": statistics.fmean(final) if final else None,
        "test_accuracy_std": math.sqrt(stats.mean_and_variance(final)[1]) if len(final) > 1 else None,
        "train_loss": statistics.fmean(losses) if losses else None,
        # A seed that never got there has no time, and the median of the others would flatter the cell.
        "time_to_accuracy_s": None if None in times else _median(times),
    }


def _throughput(measurements: Sequence[Measurement]) -> Figures:
    train_s = sum(sum(m.epochs.train_s) for m in measurements)
    eval_s = sum(sum(m.epochs.eval_s) for m in measurements)
    rate = _quotient(sum(m.train_samples for m in measurements), train_s)
    rates = [_quotient(m.train_samples, sum(m.epochs.train_s)) for m in measurements]
    over_seeds = [one for one in rates if one is not None]
    # The rate of all seeds together is not quite the mean of their rates: the interval is that of the mean.
    interval = None if rate is None else stats.t_interval(over_seeds).holding(rate)
    return {
        "train_samples_per_s": rate,
        "train_samples_per_s_low": None if interval is None or interval.low is None else max(0.0, interval.low),
        "train_samples_per_s_high": None if interval is None else interval.high,
        "epoch_s": _quotient(train_s, sum(len(m.epochs.train_s) for m in measurements)),
        "eval_samples_per_s": _quotient(sum(m.eval_samples for m in measurements), eval_s),
        "loader_share": _quotient(sum(sum(m.epochs.loader_s) for m in measurements), train_s),
    }


def _costs(measurements: Sequence[Measurement]) -> Figures:
    return {
        "compile_s": _median([m.compile_s for m in measurements]),
        "time_to_first_step_s": _median([m.time_to_first_step_s for m in measurements]),
        "total_s": _median([m.total_s for m in measurements]),
        "host_peak_mib": _peak_mib([m.host_peak_bytes for m in measurements]),
        "device_peak_mib": _peak_mib([m.device_peak_bytes for m in measurements]),
    }


def _facts(cell: Cell, measurements: Sequence[Measurement], matrix: Matrix) -> Figures:
    first = measurements[0]
    threads = first.numerics.get("threads")
    if not isinstance(threads, int):
        threads = next((v.threads for v in matrix.variants if v.name == cell.variant), None)
    return {"parameters": first.parameters, "device_name": first.device_name, "threads": threads}


def _steps(ok: Measured, index: SessionIndex) -> Figures:
    ids = [trial.id for trial, _ in ok]
    found = [session.steps.get(trial_id) for trial_id in ids for session in index.get(trial_id, ())]
    timed = [times for times in found if times is not None and times.count > 0]

    def middle(percentile: Callable[[StepTimes], float]) -> float | None:
        return _median([percentile(times) for times in timed])

    return {
        "step_ms_p50": middle(lambda times: times.p50_ms),
        "step_ms_p95": middle(lambda times: times.p95_ms),
        "step_ms_p99": middle(lambda times: times.p99_ms),
    }


def _trust(cell: Cell, ok: Measured, by_cell: TrialsByCell, variant: str | None, index: SessionIndex) -> Figures:
    """Noise, the class, and every doubt in words."""
    noise = [
        (*measurement.noisy, *(why for session in index.get(trial.id, ()) for why in session.noisy))
        for trial, measurement in ok
    ]
    marks = [mark for _, measurement in ok for mark in measurement.marks]
    class_, doubt = _class(cell, ok, by_cell, variant)
    words = dict.fromkeys([why for one in noise for why in one] + marks + ([doubt] if doubt else []))
    noisy_trials = sum(bool(one) for one in noise)
    return {
        "noisy": noisy_trials > 0,
        "noisy_trials": noisy_trials,
        "class_": class_,
        "doubts": "; ".join(words) or None,
    }


def _class(cell: Cell, ok: Measured, by_cell: TrialsByCell, variant: str | None) -> tuple[VariantClass, str | None]:
    reference_cell = cell if variant is None else replace(cell, variant=variant)
    reference = {trial.seed: measurement for trial, measurement in _measured(by_cell.get(reference_cell.id, ()))}
    pairs = [(measurement, reference[trial.seed]) for trial, measurement in ok if trial.seed in reference]
    by_settings = max(measurement.class_ for _, measurement in ok)  # the least alike of the seeds
    return proven_class(pairs, by_settings)


def _with_speed_ups(
    rows: Sequence[Row], by_cell: TrialsByCell, variant: str | None, index: SessionIndex
) -> tuple[Row, ...]:
    ids = {name: {trial.seed: trial.id for trial, _ in _measured(own)} for name, own in by_cell.items()}

    def pairs(cell: Cell, reference: Cell) -> list[tuple[str, str]]:
        these, others = ids[cell.id], ids.get(reference.id, {})
        return [(others[seed], these[seed]) for seed in these if seed in others] if reference != cell else []

    cells = [row.cell for row in rows]
    against_eager = [pairs(cell, replace(cell, variant=variant or cell.variant)) for cell in cells]
    against_cpu = [pairs(cell, replace(cell, device="cpu")) for cell in cells]
    index.measure(pair for of_cell in (*against_eager, *against_cpu) for pair in of_cell)
    return tuple(
        _with_speed_up(row, speed_up(eager, index), speed_up(cpu, index))
        for row, eager, cpu in zip(rows, against_eager, against_cpu, strict=True)
    )


def _with_speed_up(row: Row, eager: SpeedUp | None, cpu: SpeedUp | None) -> Row:
    return replace(
        row,
        speedup_vs_eager=eager.ratio if eager else None,
        speedup_vs_eager_low=eager.low if eager else None,
        speedup_vs_eager_high=eager.high if eager else None,
        speedup_vs_cpu=cpu.ratio if cpu else None,
        speedup_vs_cpu_low=cpu.low if cpu else None,
        speedup_vs_cpu_high=cpu.high if cpu else None,
        paired=weakest(eager, cpu),
    )


def _measured(trials: Iterable[Trial]) -> list[tuple[Trial, Measurement]]:
    return [(trial, trial.outcome) for trial in trials if isinstance(trial.outcome, Measurement)]


def _epochs_of(trial: Trial, measurement: Measurement) -> Iterator[EpochRow]:
    epochs = measurement.epochs
    columns_of_epochs = zip(epochs.train_s, epochs.loader_s, epochs.loss, epochs.eval_s, epochs.accuracy, strict=True)
    for number, (train_s, loader_s, loss, eval_s, accuracy) in enumerate(columns_of_epochs, start=1):
        yield EpochRow(
            trial=trial.id,
            model=trial.cell.model,
            device=trial.cell.device,
            batch_size=trial.cell.batch_size,
            variant=trial.cell.variant,
            seed=trial.seed,
            epoch=number,
            train_s=train_s,
            train_samples_per_s=_quotient(measurement.train_samples / len(epochs.train_s), train_s),
            loader_s=loader_s,
            loss=loss,
            eval_s=eval_s,
            accuracy=accuracy,
            dataset=trial.dataset,
            dataset_sha256=trial.dataset_sha256,
            recipe=trial.recipe,
        )


def _against(floor: Floor, row: Row) -> Iterator[FloorResult]:
    if floor.min_accuracy is not None:
        yield _floor_result(row, "test_accuracy", floor.min_accuracy, row.test_accuracy)
    if floor.min_train_samples_per_s is not None:
        yield _floor_result(row, "train_samples_per_s", floor.min_train_samples_per_s, row.train_samples_per_s)


def _floor_result(row: Row, figure: Figure, floor: float, value: float | None) -> FloorResult:
    name = FIGURES[figure]
    verdict: FloorVerdict
    if value is not None:
        verdict, word = ("held", "holds") if value >= floor else ("missed", "is below")
        message = f"{name} {value:.8g} {word} the floor {floor:g}"
    elif row.status == "skipped":
        verdict, message = "skipped", f"skipped, so the floor {floor:g} of {name} was not tested: {row.reason}"
    else:
        verdict, message = "missed", f"{name} was not measured ({row.status}), so the floor {floor:g} is missed"
    message = f"{row.cell.id}: {message}"
    return FloorResult(cell=row.cell, figure=figure, floor=floor, value=value, verdict=verdict, message=message)


def _time_to_accuracy(measurement: Measurement) -> float | None:
    """Seconds of training up to the end of the first epoch that reached the target."""
    trained = accumulate(measurement.epochs.train_s)
    reached = zip(trained, measurement.epochs.accuracy, strict=True)
    return next((seconds for seconds, accuracy in reached if accuracy >= TARGET_ACCURACY), None)


def _quotient(amount: float, by: float) -> float | None:
    return amount / by if by > 0 else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _peak_mib(peaks: Iterable[int | None]) -> float | None:
    return max((peak / MIB for peak in peaks if peak is not None), default=None)
