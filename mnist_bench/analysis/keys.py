"""Whether two measurements of a cell may be compared: what they must have in common, and in what they differ.

The key is small on purpose: what is in it is known to move speed or accuracy.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, get_type_hints

from mnist_bench.catalogue import training_of
from mnist_bench.cells import digest, model_of, variant_of
from mnist_bench.records import Cell, Environment, Manifest, Matrix, Measurement

PLACE_DIGITS = 16  # of a digest: enough to tell the series of one cell apart
BETWEEN = " + "  # values that differ between machines, in the environment of what was measured on several
Kind = tuple[str | int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """The comparability key of one cell of one run. None: not known, or (a GPU of a CPU cell) not there.

    Each field with what it is called, and what it moves. In the order of weight: a difference of device can be a factor
    of ten, one of the driver mostly some per cent; those of accuracy alone come last.
    """

    gpu: Annotated[str | None, "GPU", "speed"]
    cpu: Annotated[str, "CPU", "speed"]
    settings: Annotated[dict[str, Any], "settings of the cell", "speed and accuracy"]
    threads: Annotated[int | None, "threads", "speed"]
    cores: Annotated[int, "cores", "speed"]
    torch: Annotated[str | None, "torch", "speed and accuracy"]
    driver: Annotated[str | None, "NVIDIA driver", "speed"]  # of a CUDA cell
    recipe: Annotated[str, "recipe", "accuracy"]
    epochs: Annotated[int, "epochs", "accuracy"]
    dataset: Annotated[str, "data set", "accuracy"]  # name and hash


FIELDS: Mapping[str, tuple[str, str]] = {
    name: hint.__metadata__ for name, hint in get_type_hints(Key, include_extras=True).items()
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of the key that differs: what it is called and moves (``FIELDS``), and both its values in words."""

    field: str
    name: str
    affects: str
    a: str
    b: str


def key_of(manifest: Manifest, cell: Cell, measurement: Measurement | None) -> Key:
    """The key of a cell, from its run's manifest and one of its measurements; None: what is known without one."""
    environment, matrix = manifest.environment, manifest.matrix
    return Key(
        gpu=measurement.device_name if measurement and cell.device != "cpu" else None,
        cpu=environment.cpu,
        settings=settings(matrix, cell),
        threads=threads_of(matrix, cell, measurement),
        cores=environment.cores,
        torch=environment.packages.get("torch"),
        driver=environment.details.get("nvidia_driver") if cell.device.startswith("cuda") else None,
        recipe=matrix.recipe,
        epochs=matrix.epochs,
        dataset=f"{manifest.dataset.name} ({manifest.dataset.sha256[:12]})",
    )


def kind(environment: Environment) -> Kind:
    """What is known to move the speed of a machine: where it is alike, nodes of a cluster are of one kind."""
    details = (environment.details.get(name) for name in ("nvidia_driver", "accelerators"))
    return environment.cpu, environment.cores, environment.packages.get("torch"), *details


def environment_of(manifest: Manifest, nodes: Iterable[str]) -> Environment:
    """Of trials that were measured on these nodes of a cluster (an empty name: where the manifest says)."""
    known = (manifest.nodes.get(name, manifest.environment) for name in nodes)
    kinds = {kind(one): one for one in known}
    return together([*kinds.values()], apart=len(kinds) > 1) if kinds else manifest.environment


def together(environments: Sequence[Environment], *, apart: bool) -> Environment:
    """What all have in common; where machines differ it names each, and is comparable with none of them."""
    first, *others = environments
    packages = dict.fromkeys(name for one in environments for name in one.packages)
    return Environment(
        python=_joined(one.python for one in environments),
        platform=_joined(one.platform for one in environments),
        cpu=_joined(f"{one.cpu} ({one.cores} cores)" if apart else one.cpu for one in environments),
        cores=max(one.cores for one in environments),
        memory_bytes=min(one.memory_bytes for one in environments),
        packages={name: _joined(one.packages.get(name, "none") for one in environments) for name in packages},
        commit=first.commit if all(one.commit == first.commit for one in others) else None,
        dirty=any(one.dirty for one in environments),
        details={k: v for k, v in first.details.items() if all(one.details.get(k) == v for one in others)},
    )


def _joined(values: Iterable[str]) -> str:
    return BETWEEN.join(dict.fromkeys(values))


def places(manifest: Manifest, cell: Cell, ok: Mapping[int, tuple[str, Measurement]]) -> dict[str, str | None]:
    """Which results of other runs those of a cell may be held against.

    ``series``: a digest of the key; None where nothing was measured, for the key holds what only a measurement knows
    (the GPU, the threads). ``base``: a digest of what is known without one.
    """
    first = next((measurement for _, measurement in ok.values()), None)
    base, series = (digest(asdict(key_of(manifest, cell, one)))[:PLACE_DIGITS] for one in (None, first))
    return {"series": series if first else None, "base": base}


def threads_of(matrix: Matrix, cell: Cell, measurement: Measurement | None) -> int | None:
    """How many threads it computed with, as measured, else as its variant says."""
    threads = measurement.numerics.get("threads") if measurement else None
    return threads if isinstance(threads, int) else variant_of(matrix, cell.variant).threads


def settings(matrix: Matrix, cell: Cell) -> dict[str, Any]:
    """What a cell's names stand for: its model entry and variant, defaults filled in.

    Without the names themselves (what is called otherwise is not another thing), and without the threads, whose
    number is in the key.
    """
    entry, variant = model_of(matrix, cell.model), variant_of(matrix, cell.variant)
    training = training_of(entry, matrix.recipe)
    return {
        "model": entry.model,
        "optimizer": training.optimizer,
        "lr": training.lr,
        **{f.name: getattr(variant, f.name) for f in fields(variant) if f.name not in ("name", "threads", "compile")},
        **{f"compile.{f.name}": getattr(variant.compile, f.name) for f in fields(variant.compile)},
    }


def differences(a: Key, b: Key) -> tuple[Difference, ...]:
    """The fields in which two keys differ, what matters most to speed first; none: they may be compared.

    A driver that is known on one side only is no difference: CPU builds, containers and other systems hide it.
    """
    pairs = [(name, getattr(a, name), getattr(b, name)) for name in FIELDS]
    return tuple(
        Difference(name, *FIELDS[name], _words(one, other), _words(other, one))
        for name, one, other in pairs
        if one != other and not (name == "driver" and None in (one, other))
    )


def ranked(found: Iterable[Difference]) -> tuple[Difference, ...]:
    """Each difference once, what matters most first (those of one field in their order)."""
    order = list(FIELDS)
    return tuple(sorted(dict.fromkeys(found), key=lambda difference: order.index(difference.field)))


def _words(value: Any, other: Any) -> str:
    """Of settings, those that differ: two hashes would tell a person little."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {value.get(name)}" for name in value | other if value.get(name) != other.get(name))
    return "unknown" if value is None else str(value)
