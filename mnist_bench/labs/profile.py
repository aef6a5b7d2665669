"""A profile: what each part of a step alone would take, which of them bounds it, and what to try (docs/profile.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import msgspec

from mnist_bench.cells import variant_of
from mnist_bench.disk.folder import file_name
from mnist_bench.errors import UsageError
from mnist_bench.figures import significant
from mnist_bench.machine import noise
from mnist_bench.records import Cell, Failure, Matrix, Skip
from mnist_bench.running.group import CORES, Observer, Settings, ready
from mnist_bench.running.process import Interrupts, LocalWorker
from mnist_bench.running.protocol import Operator, Profile, Profiled, Share
from mnist_bench.running.runner import Options, known_data, trial_spec
from mnist_bench.running.session import Member, failure_of
from mnist_bench.table import Column, Document, Table, at, duration, texts

FOLDER = "profiles"  # in that of the results
LEAST = 0.3  # of a step: a smaller share bounds nothing
CLOSE = 0.8  # of the largest share: another one as near is named too
BOUNDS = {  # what each means, and what to try
    "loader": ("steps wait for their batches", "pipeline: resident; else more workers"),
    "launch": (
        "calling operators takes the time, whatever the batch",
        "a larger batch; execution: compile or cuda_graph",
    ),
    "compute": ("products take the time, and they are fast", "precision: bf16 or bf16-weights; more threads; a GPU"),
    "memory": ("bytes move nearly as fast as in a copy", "channels_last: true; execution: compile; bf16-weights"),
    "compile": ("compilation is long beside the training", "more epochs; compile: {cache: warm}; execution: eager"),
}
UNKNOWN = "what that operator does, by the trace: kernels far from every ceiling are slow by themselves"


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of a cell. ``shares``: the largest first; that of ``compile`` is of compilation and training."""

    cell: Cell
    step_s: float
    shares: Sequence[Share]
    operators: Sequence[Operator]
    trace: str
    noisy: Sequence[str]

    @property
    def bound(self) -> str | None:
        """That of the largest share, where it is one to speak of."""
        return self.shares[0].bound if (self.shares[0].share or 0.0) >= LEAST else None

    @property
    def verdict(self) -> str:
        first, second = self.shares[:2]
        if self.bound is None:
            longest = f"the operator with the most time is {self.operators[0].operator}"
            return f"no verdict: nothing that was measured explains more than {_percent(first)} of a step; {longest}"
        of = "compilation and training" if self.bound == "compile" else "a step"
        close = (second.share or 0.0) >= CLOSE * (first.share or 0.0)
        behind = f"; close behind: {second.bound}, {_percent(second)}" * close
        return f"{self.bound}-bound: {BOUNDS[self.bound][0]} ({_percent(first)} of {of}{behind})"


def carry_out(
    matrix: Matrix, cell: Cell, options: Options, observer: Observer, environ: Mapping[str, str]
) -> Result | Skip | Failure:
    """Profiles a cell in a fresh worker, with the first seed.

    Raises:
        UsageError: it has several processes.
        DataError, DownloadError: no usable data set.
        Interrupted, WorkerError: as the executor does.
        OSError: the folder of the trace cannot be made.
    """
    if variant_of(matrix, cell.variant).processes > 1:
        raise UsageError(f"CELL: {cell.id} has several processes, whose steps wait for each other: profile it in one")
    place = options.output_dir / FOLDER / file_name(cell.id)
    trace, log = Path(f"{place}.json"), Path(f"{place}.log")
    place.parent.mkdir(parents=True, exist_ok=True)
    trace.unlink(missing_ok=True)  # a stranger's link there would lead elsewhere
    dataset, timeout_s = known_data(matrix, options, observer, environ), options.timeout_s
    spec = trial_spec(matrix, dataset, options.run, cell, matrix.seeds[0])
    with Interrupts() as interrupts:
        where = log, environ, timeout_s or matrix.limits.timeout_seconds, interrupts
        settings = Settings(precision=0.0, budget_s=0.0, launch=lambda spec: LocalWorker(spec, *where))
        with ready(spec, settings) as member:
            if not isinstance(member, Member):
                return member
            before = noise.read((member.worker.pid,))
            found = member.worker.call(Profile(trace=str(trace.resolve())))
            _, noisy = noise.compare(before, noise.read((member.worker.pid,)), CORES)
            if not isinstance(found, Profiled):
                return failure_of(found)
    training_s = matrix.epochs * ceil(dataset.sizes[0] / cell.batch_size) * found.step_s
    shares = (*found.shares, compilation(member.prepared.compile_s, training_s))
    ranked = sorted(shares, key=lambda one: one.share or 0.0, reverse=True)
    return Result(cell, found.step_s, ranked, found.operators, str(trace), noisy)


def compilation(compile_s: float | None, training_s: float) -> Share:
    """Its share of what it and the training take that the matrix asks for."""
    if compile_s is None:
        return Share("compile", None, "nothing is compiled")
    evidence = f"{compile_s:.1f} s, before {duration(training_s)} of training"
    return Share("compile", compile_s / (compile_s + training_s), evidence)


def _percent(one: Share) -> str:
    return "" if one.share is None else f"{100 * one.share:.0f} %"


SHARES = (*texts(bound="bound"), Column("share", _percent, key="share", value=at("share")), *texts(evidence="evidence"))
OPERATORS = (
    *texts(operator="operator"),
    Column("calls", key="calls", value=at("calls")),
    Column("ms", lambda one: significant(one.host_ms), key="host_ms", value=at("host_ms")),
    Column("GPU ms", lambda one: significant(one.device_ms), 1, key="device_ms", value=at("device_ms")),
)
NOTES = (
    "Operators: without those that they call; batch and step: what lies between operators. A profiler lengthens calls.",
    "Shares: what that alone would take. They overlap, and need not add up to 100 %.",
)


def document(result: Result) -> Document:
    """The operators, the shares, the verdict."""
    operators = Table("Operators with the most time of their own", OPERATORS, result.operators)
    shares = Table(f"Of a step of {significant(1e3 * result.step_s)} ms", SHARES, result.shares)
    tries, trace = BOUNDS[result.bound][1] if result.bound else UNKNOWN, f"{result.trace} (open it in ui.perfetto.dev)"
    notes = [*NOTES, *(f"Disturbed, and so of little worth: {what}." for what in result.noisy)]
    answers = (f"{result.verdict}.", f"try: {tries}", f"trace: {trace}")
    return Document(title=f"Profile of {result.cell.id}", tables=(operators, shares), notes=notes, answers=answers)


def to_json(result: Result) -> dict[str, Any]:
    """The same as JSON values."""
    return {"bound": result.bound, "verdict": result.verdict, **msgspec.to_builtins(result)}
