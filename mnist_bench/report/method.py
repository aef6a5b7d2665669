"""How a run was measured, and where: facts of the run itself in words."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields

from mnist_bench.records import Environment, Measurement, RunOptions, Session
from mnist_bench.report.material import Material
from mnist_bench.table import plain

GIB = 1 << 30
STOPPED = {
    "precise": "precise enough",
    "budget": "at the end of the budget",
    "alone": "timed alone",
}

Facts = tuple[tuple[str, str], ...]


def measured_how(material: Material) -> Facts:
    """(what, the run's own numbers)."""
    run, matrix = material.run, material.run.manifest.matrix
    measured = [trial.outcome for trial in run.trials if isinstance(trial.outcome, Measurement)]
    noisy = sum(bool(one.noisy) for one in measured)
    seeds = ", ".join(map(str, matrix.seeds[:10])) + (", …" if len(matrix.seeds) > 10 else "")
    facts = (
        ("Seeds", f"{len(matrix.seeds)} ({seeds})"),
        ("Epochs", f"{matrix.epochs}, recipe {matrix.recipe}"),
        ("Trials", f"{len(run.trials)} finished, {len(measured)} ok, {len(material.pending)} still to come"),
        ("Timing", f"to ±{matrix.timing.precision:.1%} or {matrix.timing.budget_seconds:g} s per cell"),
        ("Sessions", sessions_words(run.sessions)),
        ("Rounds", _rounds_words(run.sessions)),
        ("Noisy", f"{noisy} of {len(measured)} trials; {sum(bool(s.noisy) for s in run.sessions)} sessions"),
        ("Options", _options_words(run.manifest.options)),
    )
    return tuple((name, text) for name, text in facts if text)


def sessions_words(sessions: Sequence[Session]) -> str:
    """``12, 10 of them paired: 4 precise enough, 8 at the end of the budget`` (why they stopped)."""
    if not sessions:
        return "none"
    stopped: Counter[str] = Counter(session.stopped for session in sessions)
    how = ", ".join(f"{stopped[key]} {words}" for key, words in STOPPED.items() if stopped[key])
    return f"{len(sessions)}, {sum(session.paired for session in sessions)} of them paired: {how}"


def environment(material: Material) -> Facts:
    """The machine and the software, as the run recorded them."""
    manifest = material.run.manifest
    where = manifest.environment
    devices = dict.fromkeys(
        f"{row.cell.device}: {row['device_name']}" for row in material.measured if row["device_name"]
    )
    threads = sorted({row["threads"] for row in material.measured if row["threads"] is not None})
    facts = (
        ("Processor", f"{where.cpu}, {where.cores} core{'s' if where.cores != 1 else ''}"),
        ("Memory", f"{where.memory_bytes / GIB:.1f} GiB"),
        ("Devices", "; ".join(devices)),
        ("Threads", ", ".join(map(str, threads))),
        ("Platform", where.platform),
        ("Python", where.python),
        *((name, version) for name, version in where.packages.items()),
        ("Commit", _commit_words(where)),
        *((name.replace("_", " "), text) for name, text in where.details.items()),
        ("Data set", f"{manifest.dataset.name} (SHA-256 {manifest.dataset.sha256[:12]}…)"),
        ("Matrix", f"{manifest.matrix_path} (SHA-256 {manifest.matrix_sha256[:12]}…)"),
    )
    return tuple((plain(name), plain(text)) for name, text in facts if text)


def warnings(material: Material) -> tuple[str, ...]:
    """What a reader must know before any figure."""
    manifest = material.run.manifest
    found = []
    if manifest.status != "complete":
        found.append(f"The run is not complete but {manifest.status}: cells or seeds may be missing.")
    if material.pending:
        found.append(f"{len(material.pending)} of {len(manifest.trials)} trials have not finished.")
    if manifest.dataset.name == "synthetic":
        found.append("Synthetic data: accuracies are not those of MNIST.")
    return tuple(found)


def _rounds_words(sessions: Sequence[Session]) -> str:
    counts = [len(session.rounds) for session in sessions if session.rounds]
    if not counts:
        return ""
    return f"median {statistics.median(counts):g} per session, {min(counts)} to {max(counts)}"


def _options_words(options: RunOptions) -> str:
    names = [field.name for field in fields(options) if field.name not in ("plugin_path", "sources")]
    given = [(name, getattr(options, name)) for name in names]
    words = [name if value is True else f"{name} {value}" for name, value in given if value]
    merged = [f"merged from {', '.join(options.merged_from)}"] if options.sources else []
    return plain(", ".join(words + merged))


def _commit_words(where: Environment) -> str:
    return "" if not where.commit else f"{where.commit[:12]}{' with changes' if where.dirty else ''}"
