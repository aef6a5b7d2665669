"""The shape of a matrix file as pydantic models: keys, types and bounds, with the words that an editor shows.

What one value must be is said here; what values must be together is in ``config_rules``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from mnist_bench.catalogue import PIPELINES, device_names, device_pattern
from mnist_bench.models import MODELS
from mnist_bench.records import BUILTIN_VARIANTS, TRAIN_IMAGES, Execution, Optimizer, PipelineName

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
BACKEND_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$"
YEAR_SECONDS = 31_536_000  # beyond it a clock's arithmetic is what would be tested

# The tags of unions appear in pydantic's locations; no key of a file can look like them.
PLAIN, DETAILED = "<plain>", "<detailed>"


def _kind(value: object) -> str | None:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return PLAIN
    return DETAILED if isinstance(value, dict | list | BaseModel) else None


def _choice(message: str) -> Discriminator:
    return Discriminator(_kind, custom_error_type="choice", custom_error_message=message)


class Raw(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Device = Annotated[str, Field(pattern=device_pattern(), examples=[name.replace("N", "1") for name in device_names()])]
BatchSize = Annotated[int, Field(ge=1, le=TRAIN_IMAGES)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(le=YEAR_SECONDS, allow_inf_nan=False)]


class RawModel(Raw):
    """A model with settings of its own."""

    model: str = Field(
        description="A built-in model, an entry point of mnist_bench.models, or package.module:function."
    )
    name: Name | None = Field(default=None, description="Its name in cells and tables; lets one model appear twice.")
    optimizer: Optimizer | None = Field(default=None, description="Default: the recipe's.")
    lr: Rate | None = Field(default=None, description="Learning rate. Default: the recipe's.")


class RawCompile(Raw):
    """Arguments of torch.compile."""

    scope: Literal["model", "step"] = Field(
        default="model", description="What is compiled: the model, or the whole step with loss and optimizer."
    )
    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = Field(
        default="default", description="How hard the compiler tries."
    )
    backend: str = Field(default="inductor", pattern=BACKEND_PATTERN, description="A backend of torch.compile.")
    fullgraph: bool = Field(default=False, description="Fail where the model does not compile into one graph.")
    dynamic: bool = Field(default=False, description="Compile for shapes that vary.")


class RawVariant(Raw):
    """Your own variant: a named bundle of execution settings (how the same mathematics is run)."""

    name: Name = Field(description="Its name in cells and tables; not that of a built-in variant.")
    execution: Execution = Field(default="eager", description="How a step is executed.")
    compile: RawCompile | None = Field(default=None, description="Only with execution: compile.")
    pipeline: PipelineName = Field(
        default="resident",
        description=f"Where batches come from: {'; '.join(entry.meaning for entry in PIPELINES.values())}.",
    )
    workers: int = Field(default=0, ge=0, le=64, description="Loader processes; not with the resident pipeline.")
    precision: Literal["fp32", "tf32", "bf16"] = Field(default="fp32", description="Arithmetic of the model.")
    fused_optimizer: bool = Field(default=True, description="One kernel for the optimizer's whole step.")
    channels_last: bool = Field(default=False, description="Images in NHWC memory order.")
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads. Default: the cores at hand.")
    flush_denormal: bool = Field(default=False, description="Treat denormal numbers as zero (CPU).")
    deterministic: bool = Field(default=False, description="Only deterministic algorithms.")
    processes: int = Field(default=1, ge=1, le=1, description="Processes of a trial; this version has 1.")


class RawSelector(Raw):
    """Matches cells: every key given must match."""

    model: str | None = Field(default=None, description="A model's name.")
    device: Device | None = Field(default=None, description="A device.")
    batch_size: BatchSize | None = Field(default=None, description="A batch size.")
    variant: str | None = Field(default=None, description="A variant's name.")


class RawFloor(RawSelector):
    """An absolute floor of the cells that the keys match (no key: of every cell)."""

    min_accuracy: float | None = Field(default=None, ge=0, le=1, description="Test accuracy, a fraction.")
    min_train_samples_per_s: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Training throughput, samples per second."
    )


class RawCell(Raw):
    """One more cell; all four keys."""

    model: str = Field(description="A model of the axis, or a built-in one.")
    device: Device
    batch_size: BatchSize
    variant: str = Field(description="A variant of the axis, or a built-in one.")


class RawTiming(Raw):
    """When the paired timing of a cell is good enough."""

    precision: float = Field(
        default=0.02, gt=0, lt=1, description="Stop when every ratio's 95 % interval is within this half-width."
    )
    budget_seconds: Seconds = Field(
        default=20.0, ge=0, description="The most seconds a cell may spend on timing, over its seeds."
    )


class RawLimits(Raw):
    """What ends a trial that goes astray."""

    timeout_seconds: Seconds = Field(default=1800.0, gt=0, description="Seconds that a trial may work.")
    memory_gib: float = Field(default=16.0, gt=0, le=1_000_000, description="GiB of memory that a trial may use.")


ModelItem = Annotated[
    Annotated[str, Tag(PLAIN), Field(examples=list(MODELS))] | Annotated[RawModel, Tag(DETAILED)],
    _choice("expected a model's name, or a mapping with the key 'model'"),
]
VariantItem = Annotated[
    Annotated[str, Tag(PLAIN), Field(json_schema_extra={"enum": [*BUILTIN_VARIANTS]})]
    | Annotated[RawVariant, Tag(DETAILED)],
    _choice("expected the name of a built-in variant, or a mapping with the key 'name'"),
]
Seeds = Annotated[
    Annotated[int, Tag(PLAIN), Field(ge=1, le=1000)]
    | Annotated[list[Seed], Tag(DETAILED), Field(min_length=1, max_length=1000)],
    _choice("expected a count of seeds, or a list of seeds"),
]


class RawMatrix(Raw):
    """A matrix of mnist-bench: models x devices x batch sizes x variants."""

    version: int = Field(ge=1, le=1, description="The version of this format: 1.")
    name: Name = Field(default="default", description="A name for the matrix.")
    dataset: Literal["auto", "mnist", "synthetic"] = Field(
        default="auto", description="auto: MNIST where it is or can be had within 10 s, else synthetic, loudly."
    )
    recipe: Literal["standard", "tutorial"] = Field(
        default="standard", description="How models are trained and scored."
    )
    epochs: int = Field(default=2, ge=1, le=50, description="Passes over the 60,000 training images.")
    seeds: Seeds = Field(default=3, description="A count (3 means 0, 1, 2) or a list.")
    models: list[ModelItem] = Field(min_length=1, description="What is trained.")
    devices: list[Device] = Field(
        min_length=1, description="Where. A device that is missing is skipped, with a reason."
    )
    batch_sizes: list[BatchSize] = Field(min_length=1, description="Samples in a training step.")
    variants: list[VariantItem] = Field(min_length=1, description="How: built-in names, or your own.")
    exclude: list[RawSelector] = Field(default=[], max_length=1000, description="Cells to leave out.")
    include: list[RawCell] = Field(default=[], max_length=10_000, description="Cells to add, after exclude.")
    timing: RawTiming = Field(default=RawTiming(), description="When the paired timing is good enough.")
    limits: RawLimits = Field(default=RawLimits(), description="What ends a trial that goes astray.")
    expect: list[RawFloor] = Field(
        default=[], max_length=1000, description="Absolute floors; one that is missed gives exit code 3."
    )


class PartialMatrix(RawMatrix):
    """What is left of a faulty file, so that one mistake does not hide the next. Never becomes a Matrix."""

    version: int = 1
    models: list[ModelItem] = []
    devices: list[Device] = []
    batch_sizes: list[BatchSize] = []
    variants: list[VariantItem] = []


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a matrix file, for editors and the ``schema`` command."""
    tidied = _tidied(RawMatrix.model_json_schema())
    assert isinstance(tidied, dict)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **tidied, "title": "mnist-bench matrix"}


def _tidied(part: Any) -> Any:
    """Drops pydantic's titles, and the null that it allows where a key may be left out: an empty value is refused."""
    if isinstance(part, list):
        return [_tidied(item) for item in part]
    if not isinstance(part, dict):
        return part
    dropped = {"title"} | ({"default"} if part.get("default", 0) is None else set())
    tidied = {key: _tidied(value) for key, value in part.items() if key not in dropped}
    options = tidied.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        (option,) = (option for option in options if option != {"type": "null"})
        tidied = {**option, **{key: value for key, value in tidied.items() if key != "anyOf"}}
    return tidied
