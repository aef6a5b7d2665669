"""What a run says as pandas frames. Types do not depend on what was measured; what was not is missing (``<NA>``)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mnist_bench.analysis import results
from mnist_bench.analysis.summary import EPOCH_COLUMNS, Run, epochs
from mnist_bench.figures import KEYS, Row
from mnist_bench.table import Table

if TYPE_CHECKING:
    import pandas as pd

STORAGE = {str: "string", float: "Float64", int: "Int64", bool: "boolean"}  # pandas' types that can be missing
SESSION_COLUMNS = ("session", "group", "round", "turn", "trial", "steps", "seconds", "paired", "stopped", "noisy")
# Of the columns that are no figures of a cell; any other holds floats.
KINDS: Mapping[str, type] = {
    **dict.fromkeys(("trial", "model", "device", "variant", "dataset", "dataset_sha256", "recipe"), str),
    **dict.fromkeys(("group", "stopped", "status", "reason", "reference", "shown", "class", "differs"), str),
    **dict.fromkeys(("batch_size", "seed", "seeds", "epoch", "session", "round", "turn", "steps"), int),
    **dict.fromkeys(("paired", "noisy"), bool),
}


def of_rows(rows: Sequence[Row]) -> "pd.DataFrame":
    """The columns of ``results.csv``."""
    table = results.table_of(rows)
    keys = [column.key for column in table.columns if column.key]
    kinds = {key: KEYS[key].kind if key in KEYS else KINDS[key] for key in keys}
    return _typed(kinds, (record.values() for record in table.records()))


def of_epochs(run: Run) -> "pd.DataFrame":
    """The columns of ``epochs.csv``."""
    return _typed(_kinds(EPOCH_COLUMNS), epochs(run))


def of_sessions(run: Run) -> "pd.DataFrame":
    """A line for each turn of a member in a round of a session."""
    return _typed(_kinds(SESSION_COLUMNS), _turns(run))


def of_table(table: Table[Any]) -> "pd.DataFrame":
    """What programs get of a table; the type of a column is that of its values, where it has any."""
    records = table.records()
    kinds = {
        key: next((type(value) for one in records if (value := one[key]) is not None), kind)
        for key, kind in _kinds(column.key for column in table.columns if column.key).items()
    }
    return _typed(kinds, (record.values() for record in records))


def _kinds(names: Iterable[str]) -> dict[str, type]:
    return {name: KINDS.get(name, float) for name in names}


def _turns(run: Run) -> Iterator[tuple[Any, ...]]:
    for number, one in enumerate(run.sessions):
        about = (one.paired, one.stopped, bool(one.noisy))
        for round_number, found in enumerate(one.rounds, start=1):
            for turn, member in enumerate(found.order, start=1):
                done = (found.steps[member], found.seconds[member])
                yield (number, one.group, round_number, turn, one.members[member], *done, *about)


def _typed(kinds: Mapping[str, type], lines: Iterable[Iterable[Any]]) -> "pd.DataFrame":
    import pandas as pd  # half a second: not before it is needed

    columns = list(zip(*lines, strict=True)) or [()] * len(kinds)
    stored: Any = {
        key: pd.array(_storable(kind, column), dtype=STORAGE[kind])  # type: ignore[call-overload]
        for (key, kind), column in zip(kinds.items(), columns, strict=True)
    }
    return pd.DataFrame(stored)


def _storable(kind: type, values: Sequence[Any]) -> Sequence[Any]:
    """A lone surrogate, which UTF-8 does not have, becomes its escape."""
    if kind is not str:
        return values
    return [value if value is None else value.encode("utf-8", "backslashreplace").decode() for value in values]
