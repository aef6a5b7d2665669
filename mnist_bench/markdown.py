"""``results.md``: a run as GitHub shows it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from mnist_bench import figures
from mnist_bench.records import Environment, Manifest
from mnist_bench.rows import Row

LEGEND = (
    "**accuracy**: the fraction of the test images that the trained model gets right: mean and standard deviation "
    "over seeds",
    "**samples/s**: training throughput over all epochs and seeds; 95 % interval over seeds (3 or more)",
    "**step ms**: one training step in the timing session: median and 95th percentile",
    "**epoch s**: seconds of training per epoch; **compile s**: seconds of cold compilation",
    "**vs eager**, **vs cpu**: how many times faster a step is than that of the same cell as `eager`, or on the CPU, "
    "both timed together; 95 % interval. Above 1 is faster",
    "**bold**: the best throughput of its model",
)

_COLUMNS: dict[str, Callable[[Row], str]] = {
    "device": lambda row: escape(row.device),
    "batch": lambda row: f"{row.batch_size:,}",
    "variant": lambda row: escape(row.variant),
    "accuracy": lambda row: figures.accuracy(row.test_accuracy, row.test_accuracy_std),
    "samples/s": lambda row: figures.joined(
        figures.significant(row.train_samples_per_s),
        figures.rate_bounds(row.train_samples_per_s_low, row.train_samples_per_s_high),
    ),
    "step ms (p50 / p95)": lambda row: " / ".join(
        figures.significant(value) for value in (row.step_ms_p50, row.step_ms_p95) if value is not None
    ),
    "epoch s": lambda row: figures.significant(row.epoch_s),
    "compile s": lambda row: figures.significant(row.compile_s),
    "vs eager": lambda row: figures.joined(
        figures.ratio(row.speedup_vs_eager), figures.bounds(row.speedup_vs_eager_low, row.speedup_vs_eager_high)
    ),
    "vs cpu": lambda row: figures.joined(
        figures.ratio(row.speedup_vs_cpu), figures.bounds(row.speedup_vs_cpu_low, row.speedup_vs_cpu_high)
    ),
}
_TEXT_COLUMNS = ("device", "variant")
_OPTIONAL_COLUMNS = ("compile s", "vs eager", "vs cpu")


def to_markdown(manifest: Manifest, rows: Sequence[Row]) -> str:
    """The whole page: where it was measured, a table per model, what could not be measured and why, a legend."""
    measured = [row for row in rows if row.seeds]
    parts = [f"# MNIST benchmark: {escape(manifest.matrix.name)}", _setting(manifest), *_warnings(manifest)]
    best = figures.fastest(rows)
    for model in dict.fromkeys(row.model for row in measured):
        parts += [f"## {escape(model)}", _model_table([row for row in measured if row.model == model], best)]
    if not measured:
        parts.append("Nothing was measured.")
    parts += _footnotes(measured)
    parts += _unmeasured([row for row in rows if row.status != "ok"])
    if measured:
        parts += ["## How to read this", "\n".join(f"- {line}" for line in LEGEND)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text from outside as Markdown that shows it literally: no markup, HTML, link or mention, in a table or not."""
    text = figures.plain(text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]~$#!])", r"\\\1", text)
    text = text.replace("|", "&#124;").replace("://", ":\\//")
    text = re.sub(r"(www)\.", r"\1\\.", text, flags=re.IGNORECASE)  # GitHub makes a link of it without http too
    return re.sub(r"@(?=\w)", "@\u200b", text)  # a zero-width space: GitHub notifies nobody


def table(header: Sequence[str], lines: Iterable[Sequence[str]], rules: Sequence[str]) -> str:
    """A table of texts that are Markdown already; ``rules`` are ``---`` (left) or ``---:`` (right)."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rules, *lines])


def _setting(manifest: Manifest) -> str:
    seeds = ", ".join(str(seed) for seed in manifest.matrix.seeds)
    parts = [
        f"Run `{manifest.run_id}`",
        *_machine(manifest.environment),
        f"data set {manifest.dataset.name} ({manifest.dataset.sha256[:12]})",
        f"recipe {manifest.matrix.recipe}",
        f"{manifest.matrix.epochs} epoch{'s' if manifest.matrix.epochs != 1 else ''}",
        f"seed{'s' if len(manifest.matrix.seeds) != 1 else ''} {seeds}",
    ]
    return " · ".join(parts)


def _machine(environment: Environment) -> list[str]:
    cores = f"{environment.cores} core{'s' if environment.cores != 1 else ''}"
    parts = [f"{escape(environment.cpu)}, {cores}", f"Python {escape(environment.python)}"]
    if "torch" in environment.packages:
        parts.append(f"torch {escape(environment.packages['torch'])}")
    if environment.commit:
        parts.append(f"commit {environment.commit[:12]}{' with changes' if environment.dirty else ''}")
    return parts


def _warnings(manifest: Manifest) -> list[str]:
    found = []
    if manifest.status != "complete":
        found.append(f"> **Not complete**: the run is {manifest.status}; cells or seeds may be missing.")
    if manifest.dataset.name == "synthetic":
        found.append("> **Synthetic data**: accuracies are not those of MNIST.")
    return found


def _model_table(rows: Sequence[Row], best: frozenset[str]) -> str:
    cells = {name: [show(row) for row in rows] for name, show in _COLUMNS.items()}
    cells = {name: column for name, column in cells.items() if any(column) or name not in _OPTIONAL_COLUMNS}
    for number, row in enumerate(rows):
        if row.cell.id in best:
            for name in ("variant", "samples/s"):
                cells[name][number] = f"**{cells[name][number]}**"
        cells["variant"][number] = figures.joined(cells["variant"][number], figures.marks(row))
    rules = ["---" if name in _TEXT_COLUMNS else "---:" for name in cells]
    return table(list(cells), zip(*cells.values(), strict=True), rules)


def _footnotes(rows: Sequence[Row]) -> list[str]:
    lines = figures.footnotes(rows)
    doubts: dict[str, list[str]] = {}
    for row in rows:
        if row.doubts:
            doubts.setdefault(escape(row.doubts), []).append(f"`{row.cell.id}`")
    lines += [f"{why}: {', '.join(cells)}" for why, cells in doubts.items()]
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _unmeasured(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    lines = [(f"`{row.cell.id}`", row.status, str(row.seeds), escape(row.reason)) for row in rows]
    return ["## Skipped and failed", table(["cell", "status", "seeds ok", "reason"], lines, ["---"] * 4)]
