"""What a run says as pandas frames. Types do not depend on what was measured; what was not is missing (``<NA>``)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mnist_bench.analysis.summary import Run
from mnist_bench.figures import KEYS
from mnist_bench.table import Table

if TYPE_CHECKING:
    import pandas as pd

STORAGE = {str: "string", float: "Float64", int: "Int64", bool: "boolean"}  # pandas' types that can be missing
SESSION_COLUMNS = ("session", "group", "round", "turn", "trial", "steps", "seconds", "paired", "stopped", "noisy")
# What a column holds, where not floats.
KINDS: Mapping[str, type] = {
    **dict.fromkeys(("trial", "model", "device", "variant", "status", "reason", "reference", "shown"), str),
    **dict.fromkeys(("group", "stopped", "accuracy_verdict", "differs"), str),
    **dict.fromkeys(("batch_size", "seed", "seeds", "epoch", "accuracy_seeds"), int),
    **dict.fromkeys(("session", "round", "turn", "steps"), int),
    **{key: figure.kind for key, figure in KEYS.items()},
}


def of_table(table: Table[Any]) -> "pd.DataFrame":
    """What programs get of a table."""
    columns = [column for column in table.columns if column.key]
    return _frame([one.key for one in columns], [[one.value(row) for row in table.rows] for one in columns])


def of_lines(names: Sequence[str], lines: Iterable[Sequence[Any]], **kinds: type) -> "pd.DataFrame":
    """Values under these names; ``kinds`` where they are not those of ``KINDS``."""
    return _frame(names, [*zip(*lines, strict=True)], **kinds)


def turns(run: Run) -> Iterator[tuple[Any, ...]]:
    """The lines under ``SESSION_COLUMNS``: one for each turn of a member in a round of a session."""
    for number, one in enumerate(run.sessions):
        about = (one.paired, one.stopped, bool(one.noisy))
        for round_number, found in enumerate(one.rounds, start=1):
            for turn, member in enumerate(found.order, start=1):
                done = (found.steps[member], found.seconds[member])
                yield (number, one.group, round_number, turn, one.members[member], *done, *about)


def _frame(names: Sequence[str], columns: Sequence[Sequence[Any]], **kinds: type) -> "pd.DataFrame":
    import pandas as pd  # which takes long: not before it is needed

    def array(name: str, values: Sequence[Any]) -> Any:
        kind = kinds.get(name, KINDS.get(name, float))
        if kind is str:  # a lone surrogate, which UTF-8 does not have, becomes its escape
            values = [value and value.encode("utf-8", "backslashreplace").decode() for value in values]
        return pd.array(values, dtype=STORAGE[kind])  # type: ignore[call-overload]

    return pd.DataFrame({name: array(name, one) for name, one in zip(names, columns or [()] * len(names), strict=True)})
