"""Matrix -> cells -> groups of trials: product, exclude, include, filter, order. Pure."""

import dataclasses
import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mnist_bench.catalogue import MODELS
from mnist_bench.errors import UsageError, quoted, unknown
from mnist_bench.records import BUILTIN_VARIANTS, CELL_KEYS, Cell, Matrix, ModelEntry, Variant, group_id, trial_id

# The trials of one model, batch size and seed, under the id of the group.
GroupTrials = tuple[str, tuple[tuple[Cell, int], ...]]

# The values wanted of each key of a cell; values of one key are alternatives.
Filter = dict[str, list[str]]

Named = TypeVar("Named", ModelEntry, Variant)

NO_REFERENCE = "No variant has the settings of eager, so none is held against another: name one with --reference."
AXES = ("models", "devices", "batch_sizes", "variants")


def expand(matrix: Matrix) -> tuple[Cell, ...]:
    """The cells of a matrix in file order, each once: the product of the axes, less ``exclude``, then ``include``.

    >>> from mnist_bench.records import Selector
    >>> matrix = Matrix(models=(ModelEntry(name="mlp", model="mlp"),), devices=("cpu", "cuda"), batch_sizes=(100,),
    ...                 variants=(Variant(name="eager"),), exclude=(Selector(device="cuda"),))
    >>> [cell.id for cell in expand(matrix)]
    ['mlp/cpu/b100/eager']
    """
    names = [entry.name for entry in matrix.models]
    variants = [variant.name for variant in matrix.variants]
    product = (
        Cell(model=model, device=device, batch_size=batch_size, variant=variant)
        for model, device, batch_size, variant in itertools.product(names, matrix.devices, matrix.batch_sizes, variants)
    )
    kept = (cell for cell in product if not any(selector.matches(cell) for selector in matrix.exclude))
    return (*kept, *matrix.include)


def model_of(matrix: Matrix, name: str) -> ModelEntry:
    """The entry of the model that a cell names: one of the axis, else a built-in (which ``include`` may name).

    >>> matrix = Matrix(models=(), devices=(), batch_sizes=(), variants=())
    >>> model_of(matrix, "mlp").model
    'mlp'
    """
    built_in = {known: ModelEntry(name=known, model=known) for known in MODELS}
    return _named("model", name, built_in | {entry.name: entry for entry in matrix.models})


def variant_of(matrix: Matrix, name: str) -> Variant:
    """The variant that a cell names: one of the axis, else a built-in.

    >>> variant_of(Matrix(models=(), devices=(), batch_sizes=(), variants=()), "compile").execution
    'compile'
    """
    return _named("variant", name, BUILTIN_VARIANTS | {variant.name: variant for variant in matrix.variants})


def _named(kind: str, name: str, known: Mapping[str, Named]) -> Named:
    if name not in known:
        raise UsageError(unknown(kind, name, sorted(known)))
    return known[name]


def variants_of(matrix: Matrix) -> tuple[Variant, ...]:
    """The variants that cells can have, each once: those of the axis, then built-ins that only ``include`` names.

    >>> extra = Cell(model="mlp", device="cpu", batch_size=100, variant="compile")
    >>> matrix = Matrix(models=(), devices=(), batch_sizes=(), variants=(Variant(name="eager"),), include=(extra,))
    >>> [variant.name for variant in variants_of(matrix)]
    ['eager', 'compile']
    """
    axis = [variant.name for variant in matrix.variants]
    beside = [cell.variant for cell in matrix.include]
    return tuple(variant_of(matrix, name) for name in dict.fromkeys([*axis, *beside]))


def reference_variant(matrix: Matrix) -> str | None:
    """The variant that the others are held against: the one that the matrix names, else the first as ``eager`` is.

    ``eager`` itself where it is on the axis; one that only ``include`` names comes last: few cells have it beside them.
    None: there is no such variant.
    """
    plain = BUILTIN_VARIANTS["eager"]
    if matrix.reference is not None:
        return matrix.reference
    if any(variant.name == plain.name for variant in matrix.variants):
        return plain.name
    return next((v.name for v in variants_of(matrix) if dataclasses.replace(v, name=plain.name) == plain), None)


def in_one_process(matrix: Matrix) -> dict[str, tuple[str, int]]:
    """Of each variant with several processes the one that differs in them alone, if there is one; and their number."""
    several = [variant for variant in matrix.variants if variant.processes > 1]
    return {
        one.name: (other.name, one.processes)
        for one in several
        for other in variants_of(matrix)
        if dataclasses.replace(one, name=other.name, processes=1, nodes=1) == other
    }


def unshared(matrix: Matrix, images: int) -> Iterator[tuple[str, str]]:
    """The variants whose processes cannot have equal shares of each batch of so many training images, and why."""
    several = {variant.name: variant.processes for variant in matrix.variants if variant.processes > 1}
    for cell in [cell for cell in expand(matrix) if cell.variant in several]:
        processes, size = several[cell.variant], cell.batch_size
        for batch, which in ((size, "a batch"), (images % size, "an epoch's last batch")):
            if batch % processes:
                words = f"{processes} cannot share {which} of {batch:,} equally: change them, or batch_sizes"
                yield cell.variant, words


def parse_filter(text: str) -> Filter:
    """Reads ``--filter``: ``key=value`` pairs with commas between; a key given twice means either value.

    Returns:
        The values wanted of each key; they are not yet held against any cells (``select`` does that).

    >>> parse_filter("model=lenet5,device=cpu,model=mlp")["model"]
    ['lenet5', 'mlp']
    """
    wanted: Filter = {}
    for pair in text.split(","):
        key, _, value = (part.strip() for part in pair.partition("="))
        if not key or not value:
            raise UsageError(f"--filter: {pair.strip()!r} is not of the form key=value (as in model=lenet5,device=cpu)")
        if key not in CELL_KEYS:
            raise UsageError("--filter: " + unknown("key", key, CELL_KEYS))
        wanted.setdefault(key, []).append(value)
    return wanted


def select(cells: Sequence[Cell], wanted: str | None) -> tuple[Cell, ...]:
    """The cells that a filter wants (as ``--filter`` has it; None: all), in their order: at least one.

    Raises:
        UsageError: a value that no cell has, or values that no cell has together.

    >>> cell = Cell(model="mlp", device="cpu", batch_size=100, variant="eager")
    >>> select([cell], "batch_size=100") == (cell,)
    True
    """
    chosen = tuple(cells)
    for key, values in parse_filter(wanted).items() if wanted is not None else ():
        known = dict.fromkeys(str(getattr(cell, key)) for cell in cells)
        for value in values:
            if value not in known:
                raise UsageError("--filter: " + unknown(key, value, known))
        chosen = tuple(cell for cell in chosen if str(getattr(cell, key)) in values)
    if not chosen:
        raise UsageError("--filter: every value is known, but no cell has them together (plan lists the cells)")
    return chosen


def one_cell(cells: Sequence[Cell], text: str) -> Cell:
    """The cell that has all that a text says, as parts of its id or as ``--filter`` does.

    Raises:
        UsageError: none has, or several have.

    >>> cell = Cell(model="mlp", device="cpu", batch_size=100, variant="eager")
    >>> {one_cell([cell], text) for text in ("mlp/cpu/b100/eager", "mlp", "model=mlp,batch_size=100")} == {cell}
    True
    """
    wanted = set(re.split("[/,]", text))
    known = {cell: {*cell.id.split("/"), *(f"{key}={getattr(cell, key)}" for key in CELL_KEYS)} for cell in cells}
    found = [cell for cell in cells if wanted <= known[cell]]
    if not found:
        raise UsageError(f"CELL: {unknown('cell', text, [cell.id for cell in cells])}")
    if len(found) > 1:
        raise UsageError(f"CELL: {quoted(text)} means {len(found)}: name one of {', '.join(one.id for one in found)}")
    return found[0]


def groups(cells: Iterable[Cell], seeds: Sequence[int]) -> tuple[GroupTrials, ...]:
    """Gathers trials into groups: one model, batch size and seed; every device and variant.

    Args:
        cells: in matrix order.
        seeds: in file order.

    Returns:
        ``(group id, ((cell, seed), ...))``: the groups of the first seed, then those of the next, in matrix order.

    >>> cells = [Cell(model="mlp", device="cpu", batch_size=100, variant=name) for name in ("eager", "compile")]
    >>> [(group, len(trials)) for group, trials in groups(cells, [0, 7])]
    [('mlp/b100/s0', 2), ('mlp/b100/s7', 2)]
    """
    gathered: dict[str, list[tuple[Cell, int]]] = {}
    cells = tuple(cells)
    for seed in seeds:
        for cell in cells:
            gathered.setdefault(group_id(cell, seed), []).append((cell, seed))
    return tuple((group, tuple(trials)) for group, trials in gathered.items())


def planned(matrix: Matrix, filter_text: str | None = None) -> tuple[GroupTrials, ...]:
    """The groups of a run in matrix order, after ``--filter`` (as it is written, or None)."""
    return groups(select(expand(matrix), filter_text or None), matrix.seeds)


def trials_of(matrix: Matrix) -> dict[str, tuple[Cell, int]]:
    """The cell and the seed of every trial of a matrix, by the trial's id.

    >>> matrix = Matrix(models=(ModelEntry(name="mlp", model="mlp"),), devices=("cpu",), batch_sizes=(100,),
    ...                 variants=(Variant(name="eager"),), seeds=(7,))
    >>> [(cell.model, seed) for cell, seed in trials_of(matrix).values()]
    [('mlp', 7)]
    """
    return {trial_id(cell, seed): (cell, seed) for cell in expand(matrix) for seed in matrix.seeds}


def order(groups: Sequence[GroupTrials], rng: random.Random) -> tuple[GroupTrials, ...]:
    """A random order in which the seeds of a cell are spread over the run: each seed's groups shuffled, seed by seed.

    Args:
        groups: as ``groups`` returns them.
        rng: the only source of chance.

    Returns:
        The same groups.

    >>> cells = [Cell(model="mlp", device="cpu", batch_size=size, variant="eager") for size in (10, 100)]
    >>> [group[-2:] for group, _ in order(groups(cells, [0, 1]), random.Random(3))]
    ['s0', 's0', 's1', 's1']
    """
    by_seed: dict[int, list[GroupTrials]] = {}
    for group in groups:
        by_seed.setdefault(group[1][0][1], []).append(group)
    for members in by_seed.values():
        rng.shuffle(members)
    return tuple(itertools.chain.from_iterable(by_seed.values()))


def fingerprint(matrix: Matrix) -> str:
    """The ``digest`` of a matrix as resolved: equal exactly where the matrices are.

    >>> matrix = Matrix(models=(), devices=("cpu",), batch_sizes=(100,), variants=())
    >>> fingerprint(matrix) == fingerprint(dataclasses.replace(matrix))
    True
    """
    return digest(dataclasses.asdict(matrix))


def entries(matrix: Matrix) -> dict[str, str]:
    """What each key of a matrix says, as JSON: by these a person tells two apart that ``fingerprint`` does."""
    names = [field.name for field in dataclasses.fields(matrix)]
    return {name: json.dumps(written(getattr(matrix, name)), ensure_ascii=False) for name in names}


def written(value: Any) -> Any:
    """A value of a matrix without what is a default, as people write it."""
    if isinstance(value, tuple):
        return [written(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    known = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    return {field.name: written(own) for field, own in known if own not in (field.default, {})}


def digest(values: Any) -> str:
    """SHA-256 (hexadecimal) of canonical JSON: the same for equal values, in whatever order they stand."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
