"""The frozen records that travel between the rooms: pure data, no I/O.

Units are in the names: ``*_s`` seconds, ``*_ms`` milliseconds, ``*_ns`` nanoseconds, ``*_bytes`` bytes.
Accuracy is a fraction in [0, 1].
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn, TypeAlias, TypeVar

import msgspec
from annotated_types import Ge, Gt, Le, Len, Lt

from mnist_bench.catalogue import CODE, DATASETS, EXECUTIONS, MEAN, PIPELINES, SETS, STD, device_pattern

Status = Literal["ok", "skipped", "diverged", "timeout", "oom", "compile_error", "failed", "crashed"]
FailureKind = Literal["diverged", "timeout", "oom", "compile_error", "failed", "crashed"]

# What a number or a text that was read may be. Held to where it is read; inside, types are trusted.
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**32), Ge(0), Lt(2**32)]  # where msgspec reads it, and where pydantic
Seconds = Annotated[float, msgspec.Meta(ge=0, lt=1e12)]
Figure = Annotated[float, msgspec.Meta(gt=-1e30, lt=1e30)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Scalar = bool | int | float | str | None
Channels = float | tuple[float, ...]  # of pixels: one for all channels, or one for each
SetName = Annotated[str, msgspec.Meta(pattern=f"^({'|'.join((*SETS, CODE))})$", max_length=200)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
ShardName = Annotated[str, msgspec.Meta(pattern=r"^\d{1,14}/\d{1,14}$")]
RunId = Annotated[str, msgspec.Meta(pattern=r"^\d{8}T\d{6}Z-[a-z0-9]{6}$")]
Moment = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]  # a label: UTC, ISO 8601

# From best to worst: the status of a cell is the worst of its seeds.
STATUSES: tuple[Status, ...] = ("ok", "skipped", "diverged", "timeout", "oom", "compile_error", "failed", "crashed")

Recipe = Literal["standard", "tutorial"]
Side = Literal["A", "B"]  # of a check: the reference, the change
Packages = Literal["shared", "per-side"]  # of a check whose sides require other ones: those here, or each side's own
# Rule 8 of docs/measurement.md: A same arithmetic, B changed numerics, C changed algorithm.
VariantClass = Literal["A", "B", "C"]
Optimizer = Literal["sgd", "adam", "adamw"]
Precision = Literal["fp32", "tf32", "bf16", "fp16", "bf16-weights"]
CLASSES: dict[Precision, VariantClass] = {"fp32": "A", "tf32": "B", "bf16": "B", "fp16": "B", "bf16-weights": "B"}
if TYPE_CHECKING:
    Execution: TypeAlias = str
    PipelineName: TypeAlias = str
else:  # as what reads files checks them
    Execution, PipelineName = Literal[tuple(EXECUTIONS)], Literal[tuple(PIPELINES)]

EVALUATION_BATCH_SIZE = 1000
TRAIN_IMAGES = 60_000
TEST_IMAGES = 10_000
MAX_EPOCHS = 50  # the figures of every epoch travel in one line of 4 KB
MAX_SEEDS = 1000
MAX_CELLS = 10_000
YEAR_SECONDS = 31_536_000  # beyond it a clock's arithmetic is what would be tested
CELL_KEYS = ("model", "device", "batch_size", "variant")
CELL_VARIABLE = "MNIST_BENCH_CELL"  # of a worker's environment: the id of its cell, for a model that must know


# What follows, up to Matrix, people write: ``config`` holds a matrix file against these annotations, and makes the JSON
# Schema of them and of the docstrings.


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a text must look like, for pydantic, which is not imported for it."""

    regex: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(source), "pattern": self.regex}


Name = Annotated[str, Pattern(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Device = Annotated[str, Pattern(device_pattern())]
BatchSize = Annotated[int, Ge(1), Le(10_000_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A model, with settings of its own where the recipe's are not meant.

    Args:
        name: Its name in cells and tables; lets one model appear twice. Default: made of the model's.
        model: A built-in model, an entry point of mnist_bench.models, or package.module:function.
        optimizer: Default: the recipe's.
        lr: Learning rate. Default: the recipe's.
    """

    name: Name
    model: str
    optimizer: Optimizer | None = None
    lr: Annotated[float, Gt(0)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Arguments of torch.compile.

    Args:
        scope: What is compiled: the model, or the whole step with loss, gradients and optimizer.
        mode: How hard the compiler tries.
        backend: A backend of torch.compile.
        fullgraph: Fail where the model does not compile into one graph.
        dynamic: Compile for shapes that vary.
        options: Options of inductor by name, as torch._inductor.config has them; they overrule the mode.
        cache: cold compiles everything anew; warm begins with the compiler's cache, filled in an earlier process.
    """

    scope: Literal["model", "step"] = "model"
    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    backend: Annotated[str, Pattern(r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")] = "inductor"
    fullgraph: bool = False
    dynamic: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    cache: Literal["cold", "warm"] = "cold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A named bundle of execution settings: how the same mathematics is run.

    Args:
        name: Its name in cells and tables; not that of a built-in variant.
        execution: How a step is executed.
        compile: Only with an execution that compiles.
        pipeline: Where batches come from.
        workers: Loader processes; not with the resident pipeline.
        precision: Arithmetic of the model; bf16 and fp16 by autocast, bf16-weights with masters in the optimizer.
        fused_optimizer: One kernel for the optimizer's whole step.
        channels_last: Images in NHWC memory order.
        fast_layers: Dropout by 16 random bits an element, convolutions by parts; with a compiler, pooling of stride 1
            by shifted views and tanh by the logistic function.
        threads: CPU threads of a process. Default: the cores that affinity and cgroup leave, over the processes.
        onednn: Convolutions and matrix products by oneDNN, where it has them (CPU).
        onednn_linear: Linear layers by oneDNN too, which torch leaves to its BLAS (CPU, fp32).
        flush_denormal: Treat denormal numbers as zero (CPU).
        deterministic: Only deterministic algorithms.
        processes: Processes that train together (DistributedDataParallel), each on its share of every batch.
        nodes: Machines that they are on, as many on each; `run --rendezvous` says where these meet.
    """

    name: Name
    execution: Execution = "eager"
    compile: CompileOptions = CompileOptions()
    pipeline: PipelineName = "resident"
    workers: Annotated[int, Ge(0), Le(64)] = 0
    precision: Precision = "fp32"
    fused_optimizer: bool = True
    channels_last: bool = False
    fast_layers: bool = False
    threads: Annotated[int, Ge(1), Le(1024)] | None = None
    onednn: bool = True
    onednn_linear: bool = False
    flush_denormal: bool = False
    deterministic: bool = False
    processes: Annotated[int, Ge(1), Le(16)] = 1
    nodes: Annotated[int, Ge(1), Le(16)] = 1


BUILTIN_VARIANTS: dict[str, Variant] = {
    "eager": Variant(name="eager"),
    "compile": Variant(name="compile", execution="compile"),
    "compile-step": Variant(name="compile-step", execution="compile", compile=CompileOptions(scope="step")),
    "compile-warm": Variant(name="compile-warm", execution="compile", compile=CompileOptions(cache="warm")),
    "max-autotune": Variant(name="max-autotune", execution="compile", compile=CompileOptions(mode="max-autotune")),
    "cuda-graph": Variant(name="cuda-graph", execution="cuda_graph"),
    "compile-cuda-graph": Variant(name="compile-cuda-graph", execution="compile_cuda_graph"),
    "channels-last": Variant(name="channels-last", channels_last=True),
    "fast-layers": Variant(name="fast-layers", fast_layers=True),
    "bf16": Variant(name="bf16", precision="bf16"),
    "fp16": Variant(name="fp16", precision="fp16"),
    "tutorial": Variant(name="tutorial", pipeline="tutorial", fused_optimizer=False),
}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """One point of the matrix: a model, device, batch size and variant by their names."""

    model: str
    device: Device
    batch_size: BatchSize
    variant: str

    @property
    def id(self) -> str:
        return f"{self.model}/{self.device}/b{self.batch_size}/{self.variant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Matches cells: every key given must be equal."""

    model: str | None = None
    device: Device | None = None
    batch_size: BatchSize | None = None
    variant: str | None = None

    def matches(self, cell: Cell) -> bool:
        return all(getattr(self, key) in (None, getattr(cell, key)) for key in CELL_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor(Selector):
    """An absolute floor of the cells that the keys match; without such a key, of every cell.

    Args:
        min_accuracy: Test accuracy, a fraction.
        min_train_samples_per_s: Training throughput, samples per second.
    """

    min_accuracy: Annotated[float, Ge(0), Le(1)] | None = None
    min_train_samples_per_s: Annotated[float, Ge(0)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRule(Selector):
    """A rule of `check` for the cells that the keys match; without such a key, for every cell. The first that matches.

    Args:
        margin: What share slower a cell may become.
        detect: The share slower that a pass excludes.
        memory: What share more peak memory it may take; a pass excludes twice that. Without it memory is not judged.
    """

    margin: Annotated[float, Ge(0), Lt(1)] = 0.03
    detect: Annotated[float, Gt(0), Lt(1)] = 0.10
    memory: Annotated[float, Gt(0), Lt(1)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When the paired timing of a cell is good enough.

    Args:
        precision: Stop when every ratio's 95 % interval is within this half-width.
        budget_seconds: The most seconds with the token that a cell may spend on timing, over its seeds.
    """

    precision: Annotated[float, Gt(0), Lt(1)] = 0.02
    budget_seconds: Annotated[float, Ge(0), Le(YEAR_SECONDS)] = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a trial may take; what goes beyond it is ended.

    Args:
        timeout_seconds: Seconds that a trial may work (it waits for its turns besides).
        memory_gib: GiB of memory that a trial may use.
        join_seconds: Seconds that a trial on several machines waits for each of the others.
        cpus: CPUs that a group takes of a node of a cluster (`run --executor ray`). Default: all of the node's.
    """

    timeout_seconds: Annotated[float, Gt(0), Le(YEAR_SECONDS)] = 1800.0
    memory_gib: Annotated[float, Gt(0), Le(1_000_000)] = 16.0
    join_seconds: Annotated[float, Gt(0), Le(YEAR_SECONDS)] = 60.0
    cpus: Annotated[int, Ge(1), Le(1024)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A matrix of mnist-bench: models x devices x batch sizes x variants. As resolved: every default is filled in.

    Args:
        version: The version of this format: 1.
        name: A name for the matrix.
        dataset: auto: MNIST where it is or can be had within 10 s, else synthetic, loudly; or the name of a set, or
            package.module:function.
        recipe: How models are trained and scored.
        epochs: Passes over the training images.
        seeds: A count (3 means 0, 1, 2) or a list.
        models: What is trained: built-in names, or entries of your own.
        devices: Where: cpu, cuda, cuda:N, mps, xpu. A device that is missing is skipped, with a reason.
        batch_sizes: Samples in a training step.
        variants: How: built-in names, or your own.
        exclude: Cells to leave out; every key given must match.
        include: Cells to add, after exclude; all four keys.
        timing: When the paired timing is good enough.
        limits: What a trial may take; what goes beyond it is ended.
        expect: Absolute floors; one that is missed gives exit code 3.
        reference: The variant that the others are held against. Default: the first whose settings are those of eager.
        gate: How much slower `check` lets a cell become: a rule, or a list whose first that matches holds.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"strict": True, "extra": "forbid"}

    version: Annotated[int, Ge(1), Le(1)] = 1
    name: Name = "default"
    dataset: Annotated[str, Pattern(f"^({'|'.join((*DATASETS, CODE))})$"), Len(0, 200)] = "auto"
    recipe: Recipe = "standard"
    epochs: Annotated[int, Ge(1), Le(MAX_EPOCHS)] = 2
    seeds: Annotated[tuple[Seed, ...], Len(1, MAX_SEEDS)] = (0, 1, 2)
    models: Annotated[tuple[ModelEntry, ...], Len(1)]
    devices: Annotated[tuple[Device, ...], Len(1)]
    batch_sizes: Annotated[tuple[BatchSize, ...], Len(1)]
    variants: Annotated[tuple[Variant, ...], Len(1)]
    exclude: Annotated[tuple[Selector, ...], Len(0, 1000)] = ()
    include: Annotated[tuple[Cell, ...], Len(0, MAX_CELLS)] = ()
    timing: Timing = Timing()
    limits: Limits = Limits()
    expect: Annotated[tuple[Floor, ...], Len(0, 1000)] = ()
    reference: str | None = None
    gate: Annotated[tuple[GateRule, ...], Len(0, 1000)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A verified data set on disk: ``root/MNIST/raw`` (or so) holds the four IDX files; ``sha256`` covers them all.

    ``mislabelled`` is one that ``selftest`` has spoilt. Of ``package.module:function`` nothing is on disk: every worker
    calls it, and holds what it returns to ``sha256``.

    ``sizes`` are the numbers of training and test images, ``shape`` an image's channels, height, width. ``mean`` and
    ``std`` are of the training images' pixels, scaled to [0, 1].
    """

    name: SetName
    root: str
    sha256: str
    mean: Channels = MEAN
    std: Channels = STD
    shape: tuple[int, int, int] = SETS["mnist"].shape
    classes: int = len(SETS["mnist"].classes)
    sizes: tuple[int, int] = (TRAIN_IMAGES, TEST_IMAGES)

    @property
    def is_code(self) -> bool:
        return ":" in self.name

    @property
    def title(self) -> str:
        """What it is called in headings; digits that are drawn stand for MNIST."""
        return self.name if self.is_code else SETS[self.name].folder


MNIST = DataSet(name="mnist", root="", sha256="")  # wherever it lies: what it is


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """All that a worker must know to execute one cell with one seed. ``id`` is the parent's name for the trial."""

    id: str
    cell: Cell
    seed: int
    model: ModelEntry
    variant: Variant  # threads resolved to a number
    recipe: Recipe
    epochs: int
    data: DataSet
    side: Side | None = None
    memory_bytes: int | None = None
    plugin_path: str | None = None  # the matrix file's folder
    allow_plugins: bool = False
    score_both: bool = False  # the final weights on the other image set too
    extras: bool = False  # measure ``Extras`` after the training
    steps_only: bool = False  # timed, never trained: nothing is prepared that its steps do not need
    deterministic_if_possible: bool = False  # a warning, not an error, where an operator has no deterministic algorithm
    cache_dir: str = ""  # of the compiler, kept from one process to the next; empty: the worker has one of its own
    samples_path: str = ""  # where the raw stamps go (.npy)
    rendezvous: str = ""  # HOST:PORT where the machines of a trial meet
    join_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The trials of one model, batch size and seed: every device and variant."""

    id: str
    specs: tuple[TrialSpec, ...]


def trial_id(cell: Cell, seed: int) -> str:
    return f"{cell.id}/s{seed}"


def group_id(cell: Cell, seed: int) -> str:
    return f"{cell.model}/b{cell.batch_size}/s{seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Epochs:
    """Figures of each epoch, as parallel tuples of one length (seconds; mean training loss; accuracy after it)."""

    train_s: Annotated[tuple[Seconds, ...], msgspec.Meta(min_length=1)]
    loader_s: tuple[Seconds, ...]
    loss: tuple[Figure, ...]
    eval_s: tuple[Seconds, ...]
    accuracy: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if len({len(self.train_s), *map(len, (self.loader_s, self.loss, self.eval_s, self.accuracy))}) != 1:
            raise ValueError("its lists differ in length")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSets:
    """Accuracy of one set of weights on the training images and on the test images."""

    train: Fraction
    test: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Percentiles of a member's single steps in the session (milliseconds) and their number; or of other calls."""

    p50_ms: Seconds
    p95_ms: Seconds
    p99_ms: Seconds
    count: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What the first seed of a cell measures beside its training. None: this device or execution has no such figure, or
    it could not be taken (a mark says why).

    ``sample_flops`` of training on one sample; ``ceiling_flops_s`` of matrix products, a second; ``latency`` of one
    image; ``graph_breaks`` and ``recompilations`` of dynamo until then; ``kernels`` that a step executes on the device,
    ``busy``: the share of a step in which any of them does; of each of several processes, a step in its own time
    (``rank_step_ms``), and without all-reduce (``rank_alone_ms``).
    """

    sample_flops: Figure | None = None
    ceiling_flops_s: Figure | None = None
    latency: StepTimes | None = None
    graph_breaks: Count | None = None
    recompilations: Count | None = None
    kernels: Figure | None = None
    busy: Fraction | None = None
    rank_step_ms: tuple[Seconds, ...] = ()
    rank_alone_ms: tuple[Seconds, ...] = ()


class Measurement(msgspec.Struct, frozen=True, kw_only=True, tag="measurement", rename={"class_": "class"}):
    """A trial that went well.

    ``phases`` are the seconds of the waterfall; ``awake_s`` is the worker's own clock from process start to exit less
    the time asleep, ``token_s`` the parent's stopwatch over the same; ``total_s``: ``awake_s`` less session and extras.
    ``marks`` are reasons for doubt (waterfall not closed); ``noisy`` are the disturbances found, each in words.
    ``final`` is the last epoch's accuracy on both image sets, where the spec asked for it (``score_both``), ``extras``
    likewise; ``energy_j`` are the joules of the epochs, None where no counter can be read.
    """

    epochs: Epochs
    train_samples: Count
    eval_samples: Count
    class_: VariantClass
    predictions_sha256: Digest
    order_sha256: Digest
    loss_trace: tuple[Figure, ...]
    phases: dict[str, Seconds]
    awake_s: Seconds
    token_s: Seconds
    total_s: Seconds
    time_to_first_step_s: Seconds
    compile_s: Seconds | None
    host_peak_bytes: Count
    device_peak_bytes: Count | None
    parameters: Count
    device_name: str
    numerics: dict[str, Scalar]
    interference: dict[str, Figure]
    noisy: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    final: ImageSets | None = None
    extras: Extras | None = None
    energy_j: Figure | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """An expected failure: what kind, and a reason that a person can act on."""

    kind: FailureKind
    reason: str


class Skip(msgspec.Struct, frozen=True, kw_only=True, tag="skip"):
    """A trial that this machine cannot execute, and what would make it possible."""

    reason: str


Outcome = Measurement | Failure | Skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One finished trial: a line of ``trials.jsonl``.

    ``side`` is that of a check, whose trials come in twos; ``node`` of a cluster, by its name in the manifest.
    """

    id: str
    cell: Cell
    seed: Seed
    side: Side | None = None
    recipe: Recipe
    dataset: str
    dataset_sha256: str
    outcome: Outcome
    started_at: Moment
    ended_at: Moment
    node: str = ""

    @property
    def status(self) -> Status:
        match self.outcome:
            case Measurement():
                return "ok"
            case Failure(kind=kind):
                return kind
            case Skip():
                return "skipped"

    @property
    def reason(self) -> str:
        return "" if isinstance(self.outcome, Measurement) else self.outcome.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a session: the order in which members (by index) had the token; each one's steps and seconds.

    ``steps`` and ``seconds`` follow ``Session.members``; a member that left the session has 0 steps.
    """

    order: tuple[Count, ...]
    steps: tuple[Count, ...]
    seconds: tuple[Seconds, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """The most memory that a process held until its steps were steady; None: its device has none of its own."""

    host_bytes: Count
    device_bytes: Count | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The timing session of one group: a line of ``sessions.jsonl``. ``members`` are trial ids.

    ``seconds``: of wall time, from the start of the group's first worker to the session's end. ``peaks`` and ``traces``
    (the losses of the first steps) are by member; ``node`` as of a trial.
    """

    group: str
    members: tuple[str, ...]
    paired: bool
    rounds: tuple[Round, ...]
    steps: dict[str, StepTimes]
    stopped: Literal["precise", "budget", "alone"]
    seconds: Seconds = 0.0
    noisy: tuple[str, ...] = ()
    peaks: dict[str, Peaks] = field(default_factory=dict)
    traces: dict[str, tuple[Figure, ...]] = field(default_factory=dict)
    node: str = ""

    def __post_init__(self) -> None:
        count = len(self.members)
        for number, one in enumerate(self.rounds):
            if len(one.steps) != count or len(one.seconds) != count or max(one.order, default=0) >= count:
                raise ValueError(f"rounds[{number}] does not fit the {count} members")
            if 0.0 in one.seconds and any(
                steps and not seconds for steps, seconds in zip(one.steps, one.seconds, strict=True)
            ):
                raise ValueError(f"rounds[{number}] has steps that took no time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The machine and software of a run, as the parent sees them without torch (the devices stand in the trials)."""

    python: str
    platform: str
    cpu: str
    cores: int  # those that affinity and cgroup leave
    memory_bytes: int
    packages: dict[str, str]
    commit: str | None = None  # of the folder that the run was started in
    dirty: bool = False
    details: dict[str, str] = field(default_factory=dict)  # governor, kernel, hypervisor, ... whatever was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Where a side's code came from. ``changed``: files that differ from the commit (of the working tree)."""

    label: str  # what the user typed, or "working tree"
    commit: str | None
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What a check is beyond a run. The manifest's own matrix is B's.

    Args:
        matrix: A's; None: its tree has none, and every cell is new.
        cells: those that are checked, of both matrices.
        incomparable: why no cell can be compared; empty: they can.
        budget_s: wall time over all sittings; ``spent_s`` is what is gone of it.
        content_sha256: of the working tree's changed files.
        untracked: files that git does not know, which are part of it; bytes that are no UTF-8 escaped.
        notes: of the whole check, for a person.
        here: where the user stood, from the root of the working tree.
        environment: what was asked for, should the sides require other packages; None: nothing.
    """

    a: Tree
    b: Tree
    matrix: Matrix | None
    cells: tuple[Cell, ...]
    incomparable: str = ""
    budget_s: Seconds
    spent_s: Seconds = 0.0
    content_sha256: str = ""
    untracked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    here: str = ""
    environment: Packages | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What a run is beyond its matrix that is a race.

    Args:
        admitted: the class that a cell may have: A alone, or A and B.
        across_batch_sizes: those of one model and device race each other, by seconds an image.
        budget_s: wall time of the process groups of each model and device (and batch size).
    """

    admitted: VariantClass = "A"
    across_batch_sizes: bool = False
    budget_s: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a run was asked for beyond its matrix: what holds for it again when it is resumed."""

    plugin_path: str = ""  # the matrix file's folder
    filter: str | None = None
    shard: ShardName | None = None
    allow_plugins: bool = False  # of the run's first start; a later one has its own say
    solo: bool = False
    strict_devices: bool = False
    score_both: bool = False  # the final weights of every trial on both image sets
    companion: RunId | None = None  # the run beside this one, of the same command (``reproduce``)
    race: Race | None = None
    across_machines: bool = False
    merged_from: tuple[RunId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """``manifest.json``: what a run set out to do, where, and how it ended. ``order`` is that of the groups.

    ``nodes``: of a cluster, by name, each as it describes itself; ``environment`` is then what they have in common.
    """

    run_id: RunId
    schema_version: int
    program_version: str
    status: Literal["running", "complete", "interrupted", "stopped"]
    matrix: Matrix
    matrix_sha256: Digest
    matrix_path: str
    options: RunOptions
    environment: Environment
    dataset: DataSet
    order: tuple[str, ...]
    trials: tuple[str, ...]
    started_at: Moment
    ended_at: Moment | None = None
    check: Sides | None = None
    nodes: dict[str, Environment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dataset.is_code and self.dataset.name != self.matrix.dataset:
            raise ValueError(f"dataset: {self.dataset.name} is code that the matrix does not name")


_T = TypeVar("_T")


def encode(record: object, *, indent: int | None = None) -> bytes:
    """A record as one line of JSON (``indent``: as several, for people) with its newline.

    Lone surrogates, of paths that are no Unicode, become escapes.

    Raises:
        ValueError: a number is not finite.
    """
    separators = None if indent else (",", ":")
    values = msgspec.to_builtins(record)
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def decode(data: bytes, kind: type[_T]) -> _T:
    """The inverse of ``encode``.

    Raises:
        ValueError: not JSON, or not such a record; the message has the field's path.
    """
    try:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:  # it takes no lone surrogates; of all else json says what is wrong
            return msgspec.convert(json.loads(data, parse_constant=_refuse), kind)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a figure")
