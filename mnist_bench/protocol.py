"""What the parent and a worker say to each other: one JSON line a message, on pipes of their own.

The worker works only between a request and its reply (it holds the token); otherwise it sleeps in a read. A change of
any message bumps ``PROTOCOL_VERSION``: sides of different versions do not talk (docs/measurement.md).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from pydantic import Field, TypeAdapter

from mnist_bench.records import FailureKind, StepTimes, TrialSpec, VariantClass

PROTOCOL_VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    spec: TrialSpec
    protocol: int = PROTOCOL_VERSION
    type: Literal["prepare"] = "prepare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Execute one block on fresh memory. ``seed`` is the round's: it draws the core and, with the id, the spacers."""

    seed: int
    type: Literal["block"] = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSession:
    """The session is over: put the state back as it was before warm-up."""

    type: Literal["end_session"] = "end_session"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainEpoch:
    epoch: int  # from 0
    type: Literal["train_epoch"] = "train_epoch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Score the images that the recipe scores; ``other_set``: those that it does not (training against test images)."""

    other_set: bool = False
    type: Literal["evaluate"] = "evaluate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    type: Literal["finish"] = "finish"


Request = Prepare | Block | EndSession | TrainEpoch | Evaluate | Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Ready for blocks. ``pairable``: may share a session (loader processes would work while the trial sleeps)."""

    block_steps: int
    step_s: float
    pairable: bool
    device_name: str
    parameters: int
    class_: VariantClass
    loss_trace: tuple[float, ...]
    time_to_first_step_s: float
    compile_s: float | None
    type: Literal["prepared"] = "prepared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """This machine cannot execute the trial. ``scope``: ``device`` or ``compile``, so that others need not ask."""

    scope: Literal["device", "compile"]
    reason: str
    type: Literal["unavailable"] = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    kind: FailureKind
    reason: str
    type: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDone:
    steps: int
    seconds: float
    type: Literal["block_done"] = "block_done"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    step_times: StepTimes | None  # None: no block was executed
    type: Literal["session_ended"] = "session_ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDone:
    """``seconds`` from the first batch asked for to the device's last work; ``loader_s`` of it waiting for batches."""

    seconds: float
    loader_s: float
    loss: float
    samples: int
    type: Literal["epoch_done"] = "epoch_done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    seconds: float
    correct: int
    samples: int
    predictions_sha256: str
    type: Literal["evaluated"] = "evaluated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last reply; the worker exits after it. ``asleep_s`` and ``elapsed_s`` run from the process's start."""

    phases: dict[str, float]
    elapsed_s: float
    asleep_s: float
    host_peak_bytes: int
    device_peak_bytes: int | None
    order_sha256: str
    numerics: dict[str, Any] = field(default_factory=dict)
    type: Literal["finished"] = "finished"


Reply = Prepared | Unavailable | Failed | BlockDone | SessionEnded | EpochDone | Evaluated | Finished

_T = TypeVar("_T")
_REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="type")])
_REPLIES: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="type")])


def encode_request(request: Request) -> bytes:
    return _encode(request)


def decode_request(line: bytes) -> Request:
    return _decode(_REQUESTS, line)


def encode_reply(reply: Reply) -> bytes:
    return _encode(reply)


def decode_reply(line: bytes) -> Reply:
    """Raises ``pydantic.ValidationError`` for anything that is not a reply of this protocol."""
    return _decode(_REPLIES, line)


def _encode(message: Request | Reply) -> bytes:
    """In ASCII: lone surrogates (of bytes that were no UTF-8), which pydantic takes for no JSON, are escaped."""
    return json.dumps(asdict(message), separators=(",", ":")).encode("ascii") + b"\n"


def _decode(adapter: TypeAdapter[_T], line: bytes) -> _T:
    try:
        # NaN and Infinity are no figures: null, which is none either, is refused where there must be one.
        values = json.loads(line.decode(), parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return adapter.validate_json(line)  # which refuses it in words
    return adapter.validate_python(values)


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
    ``tf32``: torch's own defaults by operation. ``compile_s`` None: not tried, else the seconds that a small function
    took from an empty cache. ``warnings``: what torch warned of.
    """

    version: str
    cuda: str | None
    hip: str | None
    cpu_capability: str
    devices: tuple[DeviceReport, ...]
    torchvision: str | None
    torchvision_error: str | None
    torchvision_usable: bool
    tf32: dict[str, str]
    compile_s: float | None = None
    compile_error: str | None = None
    warnings: tuple[str, ...] = ()


class ProbeFailure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """Why nothing is known of torch. ``stage``: what the process did last; ``detail``: in words."""

    kind: Literal["missing", "broken", "crashed", "hung"]
    detail: str
    stage: str = ""


# ── the extra work that selftest gives a model, in the environment of its workers ────────────────────────────────────

LOAD_VARIABLE = "MNIST_BENCH_SELFTEST"  # JSON: a cell's id -> its model, and how many rows of work
LOAD_DEPTH = 4  # products in a row
LOAD_WIDTH = 64  # of the matrices
