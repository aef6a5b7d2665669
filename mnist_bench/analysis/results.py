"""What a run says: its tables for a terminal and in Markdown, and the texts of the files in its folder. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mnist_bench import figures, table
from mnist_bench.analysis.compare import compare_cells
from mnist_bench.analysis.conclusions import Answer, conclude
from mnist_bench.analysis.keys import places
from mnist_bench.analysis.summary import EPOCH_COLUMNS, Run, epochs
from mnist_bench.figures import Row
from mnist_bench.records import Environment, Manifest
from mnist_bench.table import Column, Document, Table, by_reason, joined

STYLES = {"ok": "", "skipped": "yellow"}  # of a row on a terminal; all others: red


def answers(run: Run) -> list[Answer]:
    """What the run says of each model, by all that is asked of it."""
    return conclude(compare_cells(run, by) for by in ("variant", "device", "batch_size"))


def files(run: Run) -> Mapping[str, Iterable[str]]:
    """The tables of a run's folder by their names, each in parts."""
    said = answers(run)
    return {
        "results.csv": [figures.table_of(run.rows).csv()],
        "results.md": [document(run.manifest, run.rows, said).markdown()],
        "results.json": [to_json(run, said)],
        "epochs.csv": table.csv_parts(EPOCH_COLUMNS, epochs(run)),
    }


def facts(manifest: Manifest) -> dict[str, Any]:
    """What a run is, for programs."""
    names = ("schema_version", "run_id", "status", "started_at", "ended_at", "program_version", "matrix_sha256")
    found = {name: getattr(manifest, name) for name in names}
    return found | {name: getattr(manifest.matrix, name) for name in ("name", "recipe", "epochs")}


def to_json(run: Run, said: Sequence[Answer] = ()) -> str:
    """``results.json``: one document, all that the history asks of a run; what was not measured is null."""
    manifest = run.manifest
    document = {
        **facts(manifest),
        "planned": len(manifest.trials),
        "finished": len(run.trials),
        "merged_from": list(manifest.options.merged_from),
        "made_of": dict(run.made_of),
        "dataset": {"name": manifest.dataset.name, "sha256": manifest.dataset.sha256},
        "seeds": list(manifest.matrix.seeds),
        "environment": asdict(manifest.environment),
        "answers": [{"model": one.model, "text": one.text} for one in said],
        "rows": [
            record | places(run.manifest_of(row.cell), row.cell, run.ok[row.cell])
            for record, row in zip(figures.table_of(run.rows).records(), run.rows, strict=True)
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def document(manifest: Manifest, rows: Sequence[Row], said: Sequence[Answer] = ()) -> Document:
    """``results.md``: where it was measured, answers, a table per model, what was not measured and why, a legend."""
    measured = [row for row in rows if row.seeds]
    models = dict.fromkeys(row.cell.model for row in measured)
    return Document(
        title=f"{manifest.dataset.title} benchmark: {manifest.matrix.name}",
        facts=(" · ".join(_setting(manifest)), *warnings(manifest), *([] if measured else ["Nothing was measured."])),
        answers=tuple(map(str, said)),
        tables=[results(name, [row for row in measured if row.cell.model == name], apart=False) for name in models],
        notes=(*notes(rows), *legend(measured)),
    )


def results(title: str, rows: Sequence[Row], *, apart: bool = True) -> Table[Row]:
    """The rows for people; last what a reader must know: signs, and a status that is not ok."""
    told: Column[Row] = Column("", _told, right=False)
    return Table(title, (*figures.names(), *figures.columns(apart=apart), told), rows, style=_style)


def _told(row: Row) -> str:
    return joined(figures.signs(row), row.status if row.status != "ok" else "")


def screen(rows: Sequence[Row], said: Sequence[Answer]) -> Document:
    """The rows for a terminal; those that were skipped are a line below, not half of the table."""
    shown = [row for row in rows if row.status != "skipped"]
    return Document(title="", tables=(results("", shown),), notes=notes(rows), answers=tuple(map(str, said)))


def notes(rows: Sequence[Row]) -> list[str]:
    """What the signs mean, every doubt, and every reason once with its cells."""
    signs = figures.footnotes(figures.signs(row) for row in rows)
    doubted = [(row.cell.id, row["doubts"]) for row in rows if row["doubts"]]
    failed = [(row.cell.id, f"{row.status}: {row.reason}") for row in rows if row.status != "ok"]
    return signs + by_reason(doubted) + by_reason(failed)


def legend(rows: Sequence[Row]) -> list[str]:
    """What the columns mean that have something to say."""
    known = [figure for figure in figures.SHOWN if figure.help and any(row[figure.key] is not None for row in rows)]
    return [f"{figure.title}: {figure.help}" for figure in known]


def warnings(manifest: Manifest) -> list[str]:
    """What must be said loudly."""
    found = []
    if manifest.status != "complete":
        found.append(f"Not complete: the run is {manifest.status}; cells or seeds may be missing.")
    if manifest.dataset.name == "synthetic":
        found.append("Synthetic data: accuracies are not those of MNIST.")
    return found


def _setting(manifest: Manifest) -> list[str]:
    matrix = manifest.matrix
    return [
        f"Run {manifest.run_id}",
        *machine(manifest.environment),
        f"data set {manifest.dataset.name} ({manifest.dataset.sha256[:12]})",
        f"recipe {matrix.recipe}",
        f"{matrix.epochs} epoch{'s' * (matrix.epochs != 1)}",
        f"seed{'s' * (len(matrix.seeds) != 1)} {', '.join(map(str, matrix.seeds))}",
    ]


def machine(environment: Environment) -> list[str]:
    """Where a run was made, in words."""
    parts = [f"{environment.cpu}, {environment.cores} core{'s' * (environment.cores != 1)}"]
    parts.append(f"Python {environment.python}")
    if "torch" in environment.packages:
        parts.append(f"torch {environment.packages['torch']}")
    if environment.commit:
        parts.append(f"commit {environment.commit[:12]}{' with changes' if environment.dirty else ''}")
    return parts


def _style(row: Row) -> str:
    return "bold" if row["fastest"] else STYLES.get(row.status, "red")
