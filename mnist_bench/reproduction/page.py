"""``reproduction.md``: the result as GitHub shows it. Pure."""

from __future__ import annotations

from mnist_bench.reproduction.grids import TEXT_COLUMNS, Grid, epoch_grid, errata_grid, verdict_grid
from mnist_bench.reproduction.result import Reproduction
from mnist_bench.table import escape

PLOT = "reproduction.svg"
MEANINGS = (
    "**measured** is the mean over seeds, **range** their lowest and highest, **diff** measured less published (pp). "
    "Epochs count from 0, as in the tutorial. All accuracies are those of the training images, as published (erratum "
    "1).",
    "**within the seeds' spread**: the published figure lies in the 95 % prediction interval of one more seed, mean ± "
    "t s √(1 + 1/n), s at least the binomial deviation of 60,000 images. With one seed there is no spread: within 1 pp "
    "or not.",
    "A rate **fits** the column if the last epoch agrees and at most one epoch in ten does not.",
)
ERRATA_MEANINGS = (
    "**train** and **test**: the same weights, trained by the tutorial's recipe, scored on the training images (as the "
    "tutorial does) and on the test images; **erratum 1** is their difference.",
    "**standard**: the `standard` recipe on the test images, one seed; **erratum 2** is test less standard.",
)


def page(result: Reproduction) -> str:
    """The whole page; it shows the plot that lies beside it."""
    parts = ["# The tutorial, reproduced", _setting(result), *_incomplete(result), _table(verdict_grid(result))]
    if result.rate is not None:
        parts.append(f"**Which learning rate (erratum 4)?** {escape(result.rate.text)}")
    parts += [f"![Accuracy by epoch, published and measured]({PLOT})", _bullets(MEANINGS)]
    parts.append("## Epoch by epoch")
    for model in result.models:
        grid = epoch_grid(model)
        parts += [f"### {escape(grid.title)}", _table(grid)]
    parts += ["## What the errata cost", _table(errata_grid(result)), _bullets(ERRATA_MEANINGS)]
    parts.append(_bullets(tuple(escape(remark) for remark in result.remarks)))
    return "\n\n".join(parts) + "\n"


def _setting(result: Reproduction) -> str:
    manifest = result.tutorial
    matrix, environment = manifest.matrix, manifest.environment
    seeds = ", ".join(str(seed) for seed in matrix.seeds)
    parts = [
        f"Runs `{manifest.run_id}` (tutorial recipe) and `{result.standard.run_id}` (standard recipe)",
        f"MNIST ({manifest.dataset.sha256[:12]})",
        f"{matrix.epochs} epoch{'' if matrix.epochs == 1 else 's'}, batch {matrix.batch_sizes[0]}",
        f"seed{'' if len(matrix.seeds) == 1 else 's'} {seeds}",
        f"pipeline {matrix.variants[0].pipeline}",
        f"{escape(environment.cpu)}, {environment.cores} core{'' if environment.cores == 1 else 's'}",
        f"torch {escape(environment.packages.get('torch', 'unknown'))}",
        f"{result.work_s / 60:.1f} min of work",
    ]
    return " · ".join(parts)


def _incomplete(result: Reproduction) -> list[str]:
    if not result.missing:
        return []
    return ["> **Not complete**: figures are missing.", _bullets(tuple(escape(line) for line in result.missing))]


def _bullets(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(grid: Grid) -> str:
    rules = ["---" if name in TEXT_COLUMNS else "---:" for name in grid.header]
    lines = [grid.header, rules, *([escape(text) for text in line] for line in grid.lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
