"""A check on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mnist_bench import sheets
from mnist_bench.gate.judge import exit_code
from mnist_bench.gate.output import words
from mnist_bench.gate.output.annotations import inert
from mnist_bench.gate.records import Check, Verdict, VerdictKind
from mnist_bench.records import Cell
from mnist_bench.sheets import Column, Grid, Sheet, grid
from mnist_bench.table import plain, shortened

if TYPE_CHECKING:
    from rich.text import Text

STYLES: dict[VerdictKind, str] = {
    "failed": "red",
    "missing": "red",
    "regression": "red",
    "inconclusive": "yellow",
    "not_comparable": "yellow",
    "improvement": "cyan",
}
ADVISORY = "Advisory: medians of A → B; none of this decides."
LEAST_NAME = 24  # characters
ROOMY = 100  # columns


def to_terminal(check: Check, verdicts: Sequence[Verdict], width: int) -> Iterator[Text]:
    """Lines for a terminal of ``width`` columns: print them without wrapping.

    The head; the cells, worst first; a sentence for each that is not a pass; what is advisory; the verdict on the
    whole. A name that takes too much of the width is cut in its middle: the sentences have it in full.
    """
    from rich.text import Text

    code = exit_code(check, verdicts)
    ordered = words.sorted_worst_first(verdicts)
    for line in (*_lines_of_cells(check, ordered, width), *_lines_of_advisories(ordered, width)):
        yield Text(inert(line.plain), line.style)
    yield Text()
    yield from (Text(line, f"bold {_style(code)}") for line in sheets.wrapped(words.overall(verdicts, code), width))


def _lines_of_cells(check: Check, ordered: Sequence[Verdict], width: int) -> Iterator[Text]:
    noisy = words.noisy_pairs(check)
    cells = grid("Verdicts, worst first", _columns(check, width, noisy), ordered)
    sheet = Sheet(
        title=words.title(check),
        facts=tuple(words.facts(check)),
        grids=(replace(cells, styles=tuple(STYLES.get(one.kind, "") for one in ordered)),) if ordered else (),
        notes=(
            *([words.noise(check)] if noisy else []),
            *(one.text for one in ordered if one.kind != "pass"),
        ),
    )
    yield from sheets.to_terminal(sheet, width)


def _columns(check: Check, width: int, noisy: Collection[Cell]) -> tuple[Column[Verdict], ...]:
    """Where there is room an interval stands beside its estimate; else in a column that may be left out."""
    roomy = width >= ROOMY
    return (
        Column("verdict", words.kind, right=False),
        Column("cell", _namer(width), right=False),
        Column("speed", words.speed if roomy else words.slower, right=False),
        Column("95 %", lambda one: "" if roomy else words.slower_bounds(one), rank=2, right=False),
        Column("accuracy", words.accuracy if roomy else words.accuracy_change, rank=1, right=False),
        Column(words.unit(check), words.pairs, rank=4),
        Column("", lambda one: "†" if one.cell in noisy else "", rank=3, right=False),
        Column("seeds", words.seeds, rank=5),
    )


def _lines_of_advisories(ordered: Sequence[Verdict], width: int) -> Iterator[Text]:
    """All of it dim."""
    from rich.text import Text

    shown = _advisory_grid(ordered, width)
    if shown.lines:
        yield Text()
        for line in sheets.to_terminal(Sheet(title=ADVISORY, grids=(shown,)), width):
            yield Text(line.plain, "dim")


def _advisory_grid(ordered: Sequence[Verdict], width: int) -> Grid:
    """A column for each advisory figure; the later ones go first where the width does not do."""
    names = dict.fromkeys((item.name, item.unit) for one in ordered for item in one.advisories)

    def show(name: str, unit: str) -> Callable[[Verdict], str]:
        return lambda one: "".join(
            words.advisory(item) for item in one.advisories[:20] if (item.name, item.unit) == (name, unit)
        )

    columns: list[Column[Verdict]] = [Column("cell", _namer(width), right=False)]
    for number, (name, unit) in enumerate(names):
        columns.append(Column(plain(f"{name}, {unit}" if unit else name), show(name, unit), rank=number))
    return grid("", columns, [one for one in ordered if one.advisories])


def _namer(width: int) -> Callable[[Verdict], str]:
    limit = max(LEAST_NAME, 2 * width // 5)
    return lambda one: shortened(one.cell.id, limit)


def _style(code: int) -> str:
    return {0: "green", 4: "yellow", 5: "yellow"}.get(code, "red")
