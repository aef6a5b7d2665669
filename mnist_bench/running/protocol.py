"""What the parent and a worker say to each other: one JSON line a message, on pipes of their own.

The worker works only between a request and its reply (it holds the token); otherwise it sleeps in a read. A change of
any message bumps ``PROTOCOL_VERSION``: sides of different versions do not talk (docs/measurement.md).
"""

import re
from typing import Literal

import msgspec

from mnist_bench.records import DataSet, Extras, FailureKind, Peaks, Scalar, StepTimes, TrialSpec, VariantClass, decode

PROTOCOL_VERSION = 12


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=_snake):
    """Told apart by ``type``, the class's name: ``train_epoch``."""

    @property
    def type(self) -> str:
        return _snake(type(self).__name__)


class Open(Message, frozen=True):
    """Open the data: what the members of a group do side by side, after their imports. No device is touched."""

    spec: TrialSpec
    protocol: int = PROTOCOL_VERSION


class Prepare(Message, frozen=True):
    """By token: all that is left to do before the first block.

    ``fill``: where the compiler's cache turns out to be cold, that is all: it is filled (``Filled``).
    """

    fill: bool = False


class Describe(Message, frozen=True):
    """Call the function that is the spec's data set, and say what it returns."""

    spec: TrialSpec


class Block(Message, frozen=True):
    """Execute one block on fresh memory. ``seed`` is the round's: it draws the core and, with the id, the spacers."""

    seed: int


class EndSession(Message, frozen=True):
    """The session is over: put the state back as it was before warm-up."""


class TrainEpoch(Message, frozen=True):
    epoch: int  # from 0


class Evaluate(Message, frozen=True):
    """Score the images that the recipe scores; ``other_set``: those that it does not (training against test images)."""

    other_set: bool = False


class Profile(Message, frozen=True):
    """Say what bounds a step; instead of all that comes after ``Prepare``. ``trace``: the file that a trace goes to."""

    trace: str


class Finish(Message, frozen=True):
    """The trial is over: say the last word."""


Request = Open | Prepare | Describe | Block | EndSession | TrainEpoch | Evaluate | Profile | Finish


class Opened(Message, frozen=True):
    """The data are there."""


class Prepared(Message, frozen=True):
    """Ready for blocks. ``pairable``: may share a session (loader processes would work while the trial sleeps).

    ``gpu`` is what NVIDIA's driver calls the device; empty: it is none of NVIDIA's.
    """

    pairable: bool
    device_name: str
    parameters: int
    class_: VariantClass
    loss_trace: tuple[float, ...]
    time_to_first_step_s: float
    compile_s: float | None
    peaks: Peaks
    gpu: str = ""


class Described(Message, frozen=True):
    data: DataSet


class Unavailable(Message, frozen=True):
    """This machine cannot execute the trial. ``scope``: ``device`` or ``variant``, so that others need not ask."""

    scope: Literal["device", "variant"]
    reason: str


class Filled(Message, frozen=True):
    """The compiler's cache was cold and is filled; the worker exits. A fresh one finds it warm."""


class Failed(Message, frozen=True):
    kind: FailureKind
    reason: str


class BlockDone(Message, frozen=True):
    steps: int
    seconds: float


class SessionEnded(Message, frozen=True):
    step_times: StepTimes | None  # None: no block was executed


class EpochDone(Message, frozen=True):
    """``seconds`` from the first batch asked for to the device's last work; ``loader_s`` of it waiting for batches."""

    seconds: float
    loader_s: float
    loss: float
    samples: int


class Evaluated(Message, frozen=True):
    seconds: float
    correct: int
    samples: int
    predictions_sha256: str


class Share(msgspec.Struct, frozen=True):
    """What one thing alone would take of a step; None: it was not measured, and ``evidence`` says why."""

    bound: str
    share: float | None
    evidence: str


class Operator(msgspec.Struct, frozen=True):
    """An operator of torch in a step: its calls, and its own milliseconds, without those that it calls.

    ``device_ms`` are of its kernels on a GPU, None on a CPU.
    """

    operator: str
    calls: float
    host_ms: float
    device_ms: float | None


class Profiled(Message, frozen=True):
    """What is known of a step, and its operators with the most time of their own."""

    step_s: float
    shares: tuple[Share, ...]
    operators: tuple[Operator, ...]


class Finished(Message, frozen=True):
    """The last reply; the worker exits after it. ``asleep_s`` and ``elapsed_s`` run from the process's start.

    ``missed``: what could not be measured, of the extras mostly, or not as it was asked for; and why.
    """

    phases: dict[str, float]
    elapsed_s: float
    asleep_s: float
    host_peak_bytes: int
    device_peak_bytes: int | None
    order_sha256: str
    numerics: dict[str, Scalar] = {}
    extras: Extras | None = None
    missed: tuple[str, ...] = ()


Reply = (
    Opened
    | Prepared
    | Described
    | Unavailable
    | Filled
    | Failed
    | BlockDone
    | SessionEnded
    | EpochDone
    | Evaluated
    | Profiled
    | Finished
)


def decode_request(line: bytes) -> Request:
    """Raises ValueError for anything that is not a request of this protocol."""
    return decode(line, Request)  # type: ignore[arg-type]  # a union is no type to mypy


def decode_reply(line: bytes) -> Reply:
    """Raises ValueError for anything that is not a reply of this protocol."""
    return decode(line, Reply)  # type: ignore[arg-type]


# ── what the process that is asked about torch answers ───────────────────────────────────────────────────────────────

PROBE_STAGE = "probe: "  # begins each line of stderr in which it says what it is about to do


class DeviceReport(msgspec.Struct, frozen=True, kw_only=True):
    """One device as torch sees it; ``missing`` says why it cannot be used (None: a kernel ran on it)."""

    name: str
    missing: str | None
    description: str = ""


class TorchReport(msgspec.Struct, frozen=True, kw_only=True, tag="torch"):
    """What torch is, and what of it works here.

    ``torchvision`` None: not installed; its ``error`` is of a plain import, ``usable``: mnist_bench could import it.
    ``compile_s`` None: not tried, else the seconds that a small function took from an empty cache. ``warnings``: what
    torch warned of. ``ceilings``: FLOP/s of a matrix product, by threads; empty: not measured.
    """

    version: str
    cuda: str | None
    hip: str | None
    cpu_capability: str
    devices: tuple[DeviceReport, ...]
    torchvision: str | None
    torchvision_error: str | None
    torchvision_usable: bool
    compile_s: float | None = None
    compile_error: str | None = None
    warnings: tuple[str, ...] = ()
    ceilings: dict[int, float] = {}


class ProbeFailure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """Why nothing is known of torch. ``stage``: what the process did last; ``detail``: in words."""

    kind: Literal["missing", "broken", "crashed", "hung"]
    detail: str
    stage: str = ""


# ── the extra work that selftest gives a model, in the environment of its workers ────────────────────────────────────

LOAD_VARIABLE = "MNIST_BENCH_SELFTEST"  # JSON: a cell's id -> its model, and how many rows of work
LOAD_DEPTH = 4  # products in a row
LOAD_WIDTH = 64  # of the matrices
