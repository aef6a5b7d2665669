"""The registry of figures: each number that a cell has is named once, with how it is taken and how people read it.

The terminal, CSV, Markdown, JSON, page, exports and history iterate over ``FIGURES``: a new column is one entry.
A figure that was not measured is None, and an empty text.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from mnist_bench.records import Cell, Measurement, Status, StepTimes, Trial, VariantClass
from mnist_bench.table import Column, Table, at, for_programs, joined

if TYPE_CHECKING:
    from mnist_bench.stats import Interval  # imported late: numpy takes longer to load than a look at the history


MIB = 1 << 20
TIMES_TO = {target: f"time_to_{100 * target:.0f}_s" for target in (0.95, 0.97, 0.98, 0.99)}  # accuracy: figure

# How a ratio was measured: in one session (``within``), in several (``between``), or never together.
Paired = Literal["within", "between", "unpaired"]

FOOTNOTES = {
    "†": "noisy: the machine was disturbed while this was measured",
    "‡": "unpaired: the two sides were never timed together; drift of the machine is in the ratio",
    "§": "class B (changed numerics) or C (changed algorithm): judge the speed-up together with the accuracy",
    "*": "the fastest of its model and batch size, or not shown to be slower than it by the paired ratios (95 %)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run says of one cell.

    Args:
        worst: of the trials that are finished; the first of several equally bad.
        ok: the measurements of the seeds that are ok; steps: of their sessions.
        noise: the disturbances of each of these seeds, its sessions' included.
        vs_eager, vs_cpu: how many times faster a step is; paired: the weaker word of the two.
        efficiency: how many times faster than in one process, timed together, over the number of processes.
        fastest: of its model and batch size, or not told from the fastest.
        pays_after: epochs of training that earn its compilation back, where they do.
    """

    cell: Cell
    worst: Trial
    ok: Sequence[Measurement] = ()
    steps: Sequence[StepTimes] = ()
    noise: Sequence[Sequence[str]] = ()
    doubts: tuple[str, ...] = ()
    class_: VariantClass | None = None
    threads: int | None = None
    vs_eager: "Interval | None" = None
    vs_cpu: "Interval | None" = None
    efficiency: "Interval | None" = None
    paired: Paired | None = None
    fastest: bool = False
    pays_after: "Interval | None" = None

    @property
    def noisy(self) -> bool:
        return any(self.noise)

    def sum(self, of: Callable[[Measurement], Iterable[float]]) -> float:
        """Over all epochs of all seeds."""
        return sum(sum(of(one)) for one in self.ok)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A cell's figures: a line of ``results.csv``. ``row["epoch_s"]`` is a figure by its key, None where unknown."""

    cell: Cell
    status: Status
    reason: str
    seeds: int
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        if key not in KEYS:
            raise KeyError(f"no figure is called {key!r}")
        return self.figures.get(key)


def significant(value: float | None, digits: int = 3) -> str:
    """``12345.6`` is ``12,346``, ``12.345`` is ``12.3``, ``0.012345`` is ``0.0123``; never an exponent."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(decimals, 0), 9)}f}"


def ratio(value: float | None) -> str:
    """``1.43x``; a slow-down of a hundred times is ``0.010x``, not ``0.01x``."""
    if value is None:
        return ""
    return f"{value:.2f}x" if value >= 0.1 else f"{significant(value, 2)}x"


def bounds(low: float | None, high: float | None, text: Callable[[float | None], str] = ratio) -> str:
    """An interval: ``[1.38, 1.49]``."""
    return "" if low is None or high is None else f"[{text(low).rstrip('x')}, {text(high).rstrip('x')}]"


def accuracy(value: float | None) -> str:
    """``0.9753``."""
    return "" if value is None else f"{value:.4f}"


def points(change: float | None) -> str:
    """A difference of accuracies in percentage points: ``+0.12``."""
    return "" if change is None else f"{round(100 * change, 2) + 0.0:+.2f}"  # + 0.0: no minus before a nought


def count(value: float | None) -> str:
    """``1,234``; a median of two may lie between: ``3.5``."""
    return "" if value is None else f"{value:,.5g}"


TEXTS: Mapping[str, Callable[[float | None], str]] = {"fraction": accuracy, "count": count, "": ratio}


@dataclass(frozen=True, slots=True)
class Figure:
    """A number (or a fact) with a name.

    Args:
        key: its column in files; title, unit: for people; better: which way is an improvement.
        take: reads it off a cell; an ``Interval`` (``bounded``) has bounds beside it (``key_low``, ``key_high``).
        rank: of its column on a screen (``table.Column``); None: it stands in files, and where it has a ``help`` among
            the page's other figures.
        rank_beside: of what stands beside it, its bounds or the figure whose key is ``beside``.
        always: it is known of cells of which no seed is ok, too.
        kind: what its values are.
        slug: its name in the Bencher Metric Format (``latency`` and ``throughput`` are that format's own, others
            name their unit); empty: it is not followed from commit to commit.
    """

    key: str
    title: str
    unit: str
    better: Literal["higher", "lower"] | None
    take: Callable[[Measured], Any]
    rank: int | None = None
    rank_beside: int = 9
    beside: str = ""
    bounded: bool = False
    always: bool = False
    kind: type = float
    slug: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Its columns in files."""
        return (self.key, f"{self.key}_low", f"{self.key}_high") if self.bounded else (self.key,)

    @property
    def help(self) -> str:
        """What it means, in a sentence; empty: people do not read it."""
        return HELP.get(self.key, "")

    def text(self, value: Any) -> str:
        """A value as people read it: its unit says how."""
        return value or "" if self.kind is str else TEXTS.get(self.unit, significant)(value)

    def show(self, row: Row) -> str:
        """What people read of it."""
        return self.text(row[self.key])

    def show_beside(self, row: Row) -> str:
        """What people read beside it: its interval, its spread, its other percentile."""
        if self.bounded:
            return bounds(row[f"{self.key}_low"], row[f"{self.key}_high"], self.text)
        other = BY_KEY[self.beside] if self.beside else None
        shown = other.show(row) if other else ""
        return joined(other.title, shown, other.show_beside(row)) if other and shown else ""


def _quotient(amount: float, by: float) -> float | None:
    return amount / by if by > 0 else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _finals(one: Measured, name: str) -> list[float]:
    """What each seed's last epoch came to."""
    return [getattr(measurement.epochs, name)[-1] for measurement in one.ok]


def _accuracy_std(one: Measured) -> float | None:
    from mnist_bench.stats import mean_and_variance

    return math.sqrt(mean_and_variance(_finals(one, "accuracy"))[1]) if len(one.ok) > 1 else None


def rate_of(one: Measurement) -> float | None:
    """Training samples per second of a seed; None where no time was taken."""
    return _quotient(one.train_samples, sum(one.epochs.train_s))


def throughput(one: Measured) -> "Interval | None":
    """All samples / all seconds; the interval is that of the mean over seeds, stretched to hold it."""
    from mnist_bench.stats import Interval, t_interval

    rate = _quotient(sum(m.train_samples for m in one.ok), one.sum(lambda m: m.epochs.train_s))
    rates = [found for m in one.ok if (found := rate_of(m)) is not None]
    if rate is None:
        return None
    interval = t_interval(rates).holding(rate)
    return Interval(rate, None if interval.low is None else max(0.0, interval.low), interval.high)


def _epoch_s(one: Measured) -> float | None:
    return _quotient(one.sum(lambda m: m.epochs.train_s), sum(len(m.epochs.train_s) for m in one.ok))


def _eval_rate(one: Measured) -> float | None:
    return _quotient(sum(m.eval_samples for m in one.ok), one.sum(lambda m: m.epochs.eval_s))


def _loader_share(one: Measured) -> float | None:
    return _quotient(one.sum(lambda m: m.epochs.loader_s), one.sum(lambda m: m.epochs.train_s))


def _times_to(target: float, one: Measured) -> list[float]:
    """Of each seed that got there, seconds of training up to the end of the first epoch of that accuracy."""
    seeds = (zip(accumulate(m.epochs.train_s), m.epochs.accuracy, strict=True) for m in one.ok)
    found = (next((seconds for seconds, reached in seed if reached >= target), None) for seed in seeds)
    return [seconds for seconds in found if seconds is not None]


def _time_to(target: float) -> tuple[Figure, Figure]:
    """The time to an accuracy, and how many seeds got there if not all did: the median of these would flatter."""

    def time(one: Measured) -> float | None:
        times = _times_to(target, one)
        return _median(times) if len(times) == len(one.ok) else None

    def missed(one: Measured) -> str | None:
        reached, seeds = len(_times_to(target, one)), len(one.ok)
        return None if reached == seeds else f"{reached} of {seeds} seed{'s' * (seeds != 1)}"

    key, beside = TIMES_TO[target], f"seeds_to_{100 * target:.0f}"
    reached = Figure(key, f"s to {100 * target:.0f} %", "s", "lower", time, beside=beside)
    return reached, Figure(beside, "", "", None, missed, kind=str)


def _drift(one: Measured) -> float | None:
    """Every epoch has as many steps."""
    trained = [m.epochs.train_s for m in one.ok]
    return _median(_quotient(times[-1], times[0]) for times in trained if len(times) > 1)


def _epoch_j(one: Measured) -> float | None:
    return _median(m.energy_j / len(m.epochs.train_s) for m in one.ok if m.energy_j is not None)


def _utilisation(one: Measured) -> float | None:
    """FLOP/s of the training by those of the machine's fastest product."""
    known = [(m.extras.sample_flops, m.extras.ceiling_flops_s, rate_of(m)) for m in one.ok if m.extras]
    return _median(flops * rate / ceiling for flops, ceiling, rate in known if flops and ceiling and rate)


def _of_extras(path: str, unit: float = 1.0) -> Callable[[Measured], float | None]:
    """The median over the seeds that measured it."""
    return lambda one: _median(value and value / unit for value in map(at(f"extras.{path}"), one.ok))


def _ranks(one: Measured) -> list[tuple[float, float]]:
    """Of each rank the ms of a step, and of one without all-reduce, where they were measured."""
    return [
        both for m in one.ok if m.extras for both in zip(m.extras.rank_step_ms, m.extras.rank_alone_ms, strict=False)
    ]


def _all_reduce(one: Measured) -> float | None:
    return _median(max(0.0, 1 - alone / step) for step, alone in _ranks(one) if step)


def _rank_steps(one: Measured) -> str | None:
    return ", ".join(significant(step) for step, _ in _ranks(one)) or None


def _doubts(one: Measured) -> str | None:
    found = [*(why for seed in one.noise for why in seed), *(mark for m in one.ok for mark in m.marks), *one.doubts]
    return "; ".join(dict.fromkeys(found)) or None


def _mean_of_last(name: str) -> Callable[[Measured], float | None]:
    return lambda one: statistics.fmean(_finals(one, name))


_accuracy = _mean_of_last("accuracy")


def _step(name: str) -> Callable[[Measured], float | None]:
    return lambda one: _median([getattr(times, name) for times in one.steps if times.count > 0])


def _of_median(name: str) -> Callable[[Measured], float | None]:
    return lambda one: _median(getattr(m, name) for m in one.ok)


def _of_peak(name: str) -> Callable[[Measured], float | None]:
    return lambda one: max((peak / MIB for m in one.ok if (peak := getattr(m, name)) is not None), default=None)


# In the order of the columns of results.csv: key, title, unit, better, take, rank, what stands
# beside (its rank, and its key where it is a figure of its own).
FIGURES: tuple[Figure, ...] = (
    Figure(
        "test_accuracy", "accuracy", "fraction", "higher", _accuracy, 2, 9, "test_accuracy_std", slug="test-accuracy"
    ),
    Figure("test_accuracy_std", "±", "fraction", None, _accuracy_std),
    Figure(
        "train_samples_per_s", "samples/s", "samples/s", "higher", throughput, 4, 10, bounded=True, slug="throughput"
    ),
    Figure("step_ms_p50", "step ms", "ms", "lower", _step("p50_ms"), 5, 11, "step_ms_p95", slug="latency"),
    Figure("step_ms_p95", "p95", "ms", "lower", _step("p95_ms")),
    Figure("step_ms_p99", "p99", "ms", "lower", _step("p99_ms")),
    Figure("epoch_s", "epoch s", "s", "lower", _epoch_s, 8, slug="epoch-seconds"),
    Figure(
        "eval_samples_per_s", "evaluation samples/s", "samples/s", "higher", _eval_rate, slug="eval-samples-per-second"
    ),
    Figure("compile_s", "compile s", "s", "lower", _of_median("compile_s"), 7, slug="compile-seconds"),
    Figure("time_to_first_step_s", "first step s", "s", "lower", _of_median("time_to_first_step_s")),
    Figure("total_s", "total s", "s", "lower", _of_median("total_s")),
    Figure("loader_share", "data wait", "fraction", "lower", _loader_share),
    Figure("host_peak_mib", "host MiB", "MiB", "lower", _of_peak("host_peak_bytes"), 12, slug="host-peak-mib"),
    Figure("device_peak_mib", "device MiB", "MiB", "lower", _of_peak("device_peak_bytes"), 12, slug="device-peak-mib"),
    Figure("speedup_vs_eager", "vs eager", "", "higher", lambda one: one.vs_eager, 1, 1, bounded=True),
    Figure("speedup_vs_cpu", "vs cpu", "", "higher", lambda one: one.vs_cpu, 1, 3, bounded=True),
    Figure("paired", "paired", "", None, lambda one: one.paired, kind=str),
    Figure("noisy", "noisy", "", None, lambda one: one.noisy, kind=bool),
    Figure("class", "class", "", None, lambda one: one.class_, kind=str),
    Figure("dataset", "data set", "", None, lambda one: one.worst.dataset, kind=str, always=True),
    Figure("recipe", "recipe", "", None, lambda one: one.worst.recipe, kind=str, always=True),
    Figure("dataset_sha256", "data set", "", None, lambda one: one.worst.dataset_sha256, kind=str, always=True),
    Figure("parameters", "parameters", "", None, lambda one: one.ok[0].parameters, kind=int),
    Figure("train_loss", "training loss", "", "lower", _mean_of_last("loss")),
    *(figure for target in TIMES_TO for figure in _time_to(target)),
    Figure("break_even_epochs", "pays after epochs", "epochs", "lower", lambda one: one.pays_after, bounded=True),
    Figure("step_drift", "drift", "", "lower", _drift),
    Figure("epoch_j", "J/epoch", "J", "lower", _epoch_j),
    Figure("sample_mflop", "MFLOP/sample", "MFLOP", None, _of_extras("sample_flops", 1e6)),
    Figure("ceiling_gflops", "ceiling GFLOP/s", "GFLOP/s", None, _of_extras("ceiling_flops_s", 1e9)),
    Figure("utilisation", "utilisation", "fraction", "higher", _utilisation, 13),
    Figure("latency_ms_p50", "1 image ms", "ms", "lower", _of_extras("latency.p50_ms"), beside="latency_ms_p95"),
    Figure("latency_ms_p95", "p95", "ms", "lower", _of_extras("latency.p95_ms"), beside="latency_ms_p99"),
    Figure("latency_ms_p99", "p99", "ms", "lower", _of_extras("latency.p99_ms")),
    Figure("graph_breaks", "graph breaks", "count", "lower", _of_extras("graph_breaks")),
    Figure("recompilations", "recompilations", "count", "lower", _of_extras("recompilations")),
    Figure("kernels_per_step", "kernels/step", "count", "lower", _of_extras("kernels")),
    Figure("device_busy", "device busy", "fraction", "higher", _of_extras("busy")),
    Figure("scaling_efficiency", "efficiency", "fraction", "higher", lambda one: one.efficiency, 3, 6, bounded=True),
    Figure("all_reduce_share", "all-reduce", "fraction", "lower", _all_reduce, 3),
    Figure("rank_step_ms", "step ms by rank", "", None, _rank_steps, kind=str),
    Figure("device_name", "device", "", None, lambda one: one.ok[0].device_name, kind=str),
    Figure("threads", "threads", "", None, lambda one: one.threads, kind=int),
    Figure("noisy_trials", "noisy trials", "", None, lambda one: sum(map(bool, one.noise)), kind=int),
    Figure("doubts", "doubts", "", None, _doubts, kind=str),
    Figure("fastest", "fastest", "", None, lambda one: one.fastest, kind=bool),
)
# What the columns mean that people read.
HELP: Mapping[str, str] = {
    "test_accuracy": "the fraction of the test images that it gets right: mean and standard deviation over seeds",
    "train_samples_per_s": "training throughput over all epochs and seeds; 95 % interval over seeds (3 or more)",
    "step_ms_p50": "one training step in the timing session: median, and 95th percentile",
    "epoch_s": "seconds of training per epoch",
    "compile_s": "seconds of compilation, from an empty cache unless the variant's is warm",
    "host_peak_mib": "peak memory of the host",
    "device_peak_mib": "peak memory of the device, where it has its own",
    "speedup_vs_eager": "how many times faster a step is than the reference variant's, timed together; 95 % interval",
    "speedup_vs_cpu": "how many times faster a step is than on the CPU, timed together; 95 % interval",
    "loader_share": "the share of the training time spent waiting for batches",
    **dict.fromkeys(TIMES_TO.values(), "seconds of training to this accuracy; else the seeds that reached it"),
    "break_even_epochs": "epochs of training after which compiling has paid; 95 % interval",
    "step_drift": "how many times as long a step of the last epoch takes as one of the first",
    "epoch_j": "joules of an epoch's training: the GPU's, or those of the processor packages",
    "sample_mflop": "floating-point work of training on one sample, as torch counts it",
    "ceiling_gflops": "what a large matrix product reaches with the same threads and precision",
    "utilisation": "floating-point work of the training per second, as a share of what a large matrix product reaches",
    "latency_ms_p50": "the model's answer to a single image: median, 95th and 99th percentile",
    "graph_breaks": "places where torch.compile left the model to Python",
    "recompilations": "how often a frame was compiled anew, for another shape or mode",
    "kernels_per_step": "kernels that a training step executes on the device",
    "device_busy": "the share of a training step in which the device works",
    "scaling_efficiency": "how much faster a step is than in one process, over the number of processes; 95 % interval",
    "all_reduce_share": "the share of a step that is gone without all-reduce, waiting for other processes included",
    "rank_step_ms": "the median training step by the clock of each of several processes",
}
BY_KEY: Mapping[str, Figure] = {figure.key: figure for figure in FIGURES}
KEYS: Mapping[str, Figure] = {key: figure for figure in FIGURES for key in figure.keys}
SHOWN: tuple[Figure, ...] = tuple(figure for figure in FIGURES if figure.rank is not None)
OTHERS: tuple[Figure, ...] = tuple(figure for figure in FIGURES if figure.rank is None and figure.help)
FOLLOWED: tuple[Figure, ...] = tuple(figure for figure in FIGURES if figure.slug)


def take(one: Measured) -> dict[str, Any]:
    """The figures of a cell by their keys; without a seed that is ok, only those that are always known."""
    values: dict[str, Any] = {}
    for figure in FIGURES:
        if not one.ok and not figure.always:
            continue
        found = figure.take(one)
        if not figure.bounded:
            values[figure.key] = found
        elif found is not None:
            values |= zip(figure.keys, (found.estimate, found.low, found.high), strict=True)
    return values


def cell_columns() -> tuple[Column[Any], ...]:
    """The names of a cell, of whatever has one."""
    return (
        Column("model", right=False, key="model", value=at("cell.model")),
        Column("device", right=False, key="device", value=at("cell.device")),
        Column("batch", lambda one: f"{one.cell.batch_size:,}", key="batch_size", value=at("cell.batch_size")),
        Column("variant", right=False, key="variant", value=at("cell.variant")),
    )


def names() -> tuple[Column[Row], ...]:
    """The columns that say which cell a row is, and (for programs) how it went."""
    return (
        *cell_columns(),
        *for_programs(status="status", reason="reason", seeds="seeds"),
    )


def table_of(rows: Sequence[Row]) -> Table[Row]:
    """The rows with every column, as programs get them."""
    return Table("", (*names(), *columns()), rows)


def columns(*, apart: bool = True) -> tuple[Column[Row], ...]:
    """The columns of all figures; what stands beside a figure in a column of its own (``apart``), or in the same."""
    return tuple(column for figure in FIGURES for column in _columns(figure, apart))


def _columns(figure: Figure, apart: bool) -> Iterable[Column[Row]]:
    title, rank = None if figure.rank is None else figure.title, figure.rank or 0

    def text(row: Row) -> str:
        return figure.show(row) if apart else joined(figure.show(row), figure.show_beside(row))

    yield Column(title, text, rank=rank, key=figure.key, value=lambda row: row[figure.key])
    if title and apart and figure.bounded:
        yield Column("95 %", figure.show_beside, rank=figure.rank_beside)
    elif title and apart and figure.beside:
        yield Column(BY_KEY[figure.beside].title, BY_KEY[figure.beside].show, rank=figure.rank_beside)
    for key in figure.keys[1:]:
        yield Column(None, key=key, value=itemgetter(key))


def interval_columns(
    title: str, key: str, path: str, *, text: Callable[[float | None], str] = ratio, rank: int = 0, rank_beside: int = 1
) -> tuple[Column[Any], ...]:
    """An estimate with its bounds beside it, off an ``Interval``; in files ``key``, ``key_low`` and ``key_high``."""
    estimate, low, high = (at(f"{path}.{name}") for name in ("estimate", "low", "high"))
    return (
        Column(title, lambda row: text(estimate(row)), rank=rank, key=key, value=estimate),
        Column("95 %", lambda row: bounds(low(row), high(row), text), rank=rank_beside),
        Column(None, key=f"{key}_low", value=low),
        Column(None, key=f"{key}_high", value=high),
    )


def both_columns(key: str, sides: Mapping[str, str], rank: int) -> tuple[Column[Any], ...]:
    """A figure before and after: ``10.4 → 11.0 (+6 %)``, once where both are alike; in files a column for each side.

    Args:
        sides: the two, by the ends of their names in files: where a row has that side's figures, or None.
    """
    figure, share = BY_KEY[key], BY_KEY[key].unit not in TEXTS
    values = {name: at(f"{path}.{key}") for name, path in sides.items()}

    def text(row: Any) -> str:
        was, now = (value(row) for value in values.values())
        before, after = figure.text(was), figure.text(now)
        if before in ("", after):
            return after
        moved = f" ({100 * (now / was - 1):+,.0f} %)" if share and was and now is not None else ""
        return f"{before} → {after or '-'}{moved}"

    files = (Column(None, key=f"{key}_{name}", value=value) for name, value in values.items())
    return (Column(figure.title, text, rank), *files)


def signs(row: Row) -> str:
    """What a reader must know before comparing this row with another, as signs of ``FOOTNOTES``."""
    star = "*" if row["fastest"] else ""
    return star + marks(noisy=row["noisy"] is True, unpaired=row["paired"] == "unpaired", class_=row["class"])


def marks(*, noisy: bool, unpaired: bool, class_: VariantClass | None) -> str:
    """The signs of ``FOOTNOTES`` that hold."""
    holds = {"†": noisy, "‡": unpaired, "§": class_ in ("B", "C")}
    return "".join(mark for mark, held in holds.items() if held)


def footnotes(found: Iterable[str], notes: Mapping[str, str] = FOOTNOTES) -> list[str]:
    """What the signs mean that are used."""
    used = set("".join(found))
    return [f"{mark} {text}" for mark, text in notes.items() if mark in used]
