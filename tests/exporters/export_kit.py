"""A run with every kind of cell, and names that were made to harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from record_factory import (
    make_cell,
    make_epochs,
    make_failed,
    make_manifest,
    make_matrix,
    make_measurement,
    make_session,
    make_trial,
)

from mnist_bench.records import (
    BUILTIN_VARIANTS,
    Floor,
    Manifest,
    ModelEntry,
    Session,
    Skip,
    Trial,
)
from mnist_bench.rows import Row
from mnist_bench.store import RunFolder
from mnist_bench.summary import summarise

HOSTILE = (
    '=HYPERLINK("http://evil.example","click")',
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1:A9)",
    "\t=1+1",
    "\r=1+1",
    " =1+1",
    '"=1+1',
    "a;=1+1",
    'a; "@SUM(A1)',
    "＝1+1",  # noqa: RUF001
    "</script><img src=x onerror=alert(1)>",
    "]]><!-- & -->",
    "two\nlines",
    "\x00\x1b[31mred\x07",
    "\ud800\ufffe",
    "\n",
    "\r",
)


@dataclass(frozen=True)
class Records:
    """The arguments of an exporter."""

    manifest: Manifest
    rows: tuple[Row, ...]
    trials: tuple[Trial, ...]
    sessions: tuple[Session, ...]

    @property
    def all(self) -> tuple[Manifest, tuple[Row, ...], tuple[Trial, ...], tuple[Session, ...]]:
        return self.manifest, self.rows, self.trials, self.sessions


def records(trials: Sequence[Trial], sessions: Sequence[Session] = (), **changes: object) -> Records:
    manifest = make_manifest(trials, **changes)
    return Records(manifest, summarise(manifest, trials, sessions), tuple(trials), tuple(sessions))


def every_kind() -> Records:
    """Two cells timed over three seeds, one of them under a floor; one never timed, one skipped, one failed."""
    eager, compiled = make_cell(), make_cell(variant="compile")
    never, skipped, failed = make_cell("cnn"), make_cell(device="cuda"), make_cell(batch_size=1000)
    trials, sessions = [], []
    for seed in range(3):
        epochs = make_epochs(accuracy=(0.9, 0.95 + seed / 100))
        pair = (
            make_trial(eager, seed, make_measurement(epochs=epochs)),
            make_trial(
                compiled, seed, make_measurement(epochs=epochs, compile_s=9.5, noisy=("others used 11 % of the cores",))
            ),
        )
        trials += pair
        rounds = [(3.0 + 0.1 * seed, 2.0), (3.2, 2.1), (2.9, 0.0), (3.4, 2.2)]  # compile misses one round
        sessions.append(make_session(pair, rounds, group=f"mlp/b100/s{seed}"))
    trials += [
        make_trial(never),
        make_trial(skipped, outcome=Skip(reason="no NVIDIA driver")),
        make_failed(failed, kind="oom", reason="out of memory: use less"),
    ]
    matrix = make_matrix(
        models=(ModelEntry(name="mlp", model="mlp"), ModelEntry(name="cnn", model="cnn")),
        devices=("cpu", "cuda"),
        expect=(Floor(variant="compile", min_accuracy=0.99),),
    )
    return records(trials, sessions, matrix=matrix)


def hostile() -> Records:
    """A cell for each hostile name, which is its model, its variant and its reason; with a session where it is ok."""
    trials, sessions = [], []
    for number, name in enumerate(HOSTILE):
        ok = make_trial(make_cell(model=name, variant=name), outcome=make_measurement(device_name=name, marks=(name,)))
        trials += [ok, make_failed(make_cell(model=name, variant=f"{number}"), reason=name)]
        sessions.append(make_session([ok], [(2.0 + number,), (3.0,)], paired=False, group=f"{name}/b100/s0"))
    variants = (BUILTIN_VARIANTS["eager"],)
    return records(trials, sessions, matrix=make_matrix(name=HOSTILE[0], variants=variants))


def nothing_measured() -> Records:
    return records([make_trial(make_cell(device="cuda"), outcome=Skip(reason="no NVIDIA driver"))])


def on_disk(output_dir: Path, made: Records) -> RunFolder:
    folder = RunFolder.create(output_dir, made.manifest)
    with folder.lock():
        for trial in made.trials:
            folder.append_trial(trial)
        for session in made.sessions:
            folder.append_session(session)
    return folder


def from_disk(output_dir: Path) -> Records:
    """The newest run: figures of 6 digits, as they are stored."""
    folder = RunFolder.open(output_dir, "latest")
    manifest, trials, sessions = folder.manifest(), folder.trials(), folder.sessions()
    return Records(manifest, summarise(manifest, trials, sessions), trials, sessions)
