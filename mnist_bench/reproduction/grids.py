"""The tables of a reproduction as text, for the page and the terminal alike. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from mnist_bench.reproduction.result import Reproduction
from mnist_bench.reproduction.verdicts import EpochFigures, ModelFigures, signed

TEXT_COLUMNS = ("model", "verdict", "agrees")  # the others are figures, and end at the right


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table: a title, the names of its columns, and lines of as many texts."""

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def verdict_grid(result: Reproduction) -> Grid:
    return Grid(
        title="After the last epoch (accuracy in percent)",
        header=("model", "published", "measured", "range", "diff", "verdict"),
        lines=tuple((model.name, *_compared(model.final), model.verdict) for model in result.models),
    )


def epoch_grid(model: ModelFigures) -> Grid:
    seeds = f"{len(model.seeds)} seed{'' if len(model.seeds) == 1 else 's'}"
    return Grid(
        title=f"{model.name}, lr {model.lr:g}, {seeds}",
        header=("epoch", "published", "measured", "range", "diff", "would agree", "agrees"),
        lines=tuple(
            (str(each.epoch), *_compared(each), f"{each.low:.2f} to {each.high:.2f}", "yes" if each.inside else "no")
            for each in model.epochs
        ),
    )


def errata_grid(result: Reproduction) -> Grid:
    return Grid(
        title="What the errata cost (accuracy in percent after the last epoch)",
        header=("model", "published", "train", "test", "standard", "erratum 1", "erratum 2"),
        lines=tuple(
            (
                row.name,
                f"{row.published:.2f}",
                f"{row.train:.2f}",
                f"{row.test:.2f}",
                "" if row.standard is None else f"{row.standard:.2f}",
                signed(row.erratum_1),
                "" if row.erratum_2 is None else signed(row.erratum_2),
            )
            for row in result.errata
        ),
    )


def _compared(figures: EpochFigures) -> tuple[str, str, str, str]:
    several = len(figures.measured) > 1
    return (
        f"{figures.published:.2f}",
        f"{figures.mean:.2f}",
        f"{min(figures.measured):.2f}-{max(figures.measured):.2f}" if several else "",
        signed(figures.difference),
    )
