"""A stranger's folder is input: whatever stands in it ends in a result or in one clear line, never anywhere else.

Every mutant is a made folder with one file, or one field of a file, spoilt, and one command that reads it.
``HOSTILE_MUTANTS`` says how many, of a draw that ``HOSTILE_SALT`` names: ``make nightly`` tries thousands of the day's.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from check_kit import MATRIX, Repo, parse, trial
from record_factory import make_cell, make_manifest, make_session
from test_golden import made, place  # noqa: F401 - fixtures

from mnist_bench.cells import expand
from mnist_bench.cli import main
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import WorkerError
from mnist_bench.gate import sides
from mnist_bench.records import Sides, Tree
from mnist_bench.running import runner
from mnist_bench.running.protocol import PROTOCOL_VERSION

COUNT = int(os.environ.get("HOSTILE_MUTANTS", "300"))
SALT = os.environ.get("HOSTILE_SALT", "")
RUN, SHARD = "results/20010101T101500Z-first0", "shards/20010401T101500Z-shard1"
GATED = "gated/20010901T101500Z-after0"
AGAINST_BASELINE = f"check {Path(GATED).name} -o gated --baseline baseline.json"
REPRODUCED = "tutorial/20010601T101500Z-tutor0"
CHECKED = "checks/20011001T101500Z-check1"
LINES = ("manifest.json", "trials.jsonl", "sessions.jsonl")
ID = Path(RUN).name
OUTSIDE = Path("outside")  # of every run
RUN_ID = re.compile(r"\b2001\w+-\w+")
BATCH = 10  # mutants of a test
READERS = {
    **{
        f"{RUN}/{name}": (
            f"compare {ID}",
            f"compare {ID} 20010201T101500Z-later0 --format csv",
            f"export {ID} --format junit",
            f"export {ID} --format bmf",
            f"export {ID} --format tensorboard --output tracked",
            f"report {ID}",
            f"run --resume {ID} --no-progress",
            f"baseline update {ID} --output made.json --reason why",
        )
        for name in LINES
    },
    f"{RUN}/results.json": ("history", "history --filter model=lenet5 --format json"),
    **{f"{SHARD}/{name}": (f"merge {Path(SHARD).name} 20010401T101500Z-shard2 -o shards",) for name in LINES},
    **{f"{REPRODUCED}/{name}": (f"reproduce --resume {Path(REPRODUCED).name} -o tutorial",) for name in LINES[:2]},
    **{f"{GATED}/{name}": (AGAINST_BASELINE,) for name in LINES},
    **{f"{CHECKED}/{name}": (f"check --resume {Path(CHECKED).name} -o . --no-progress",) for name in LINES},
    "baseline.json": (AGAINST_BASELINE,),
    "check.json": ("check --replay check.json", "check --replay check.json --format md"),
    "small.yaml": ("plan small.yaml",),
}
WORDS = ("", "x", "\0", "\ud800", "\x1b[31mred", "‮back", "a\n::error::b", "<b>|`@x", "../../x", "1e9", "x" * 100_000)
NUMBERS = (0, -1, 1, 0.5, 1e308, -1e308, 2**31, 2**63, 10**400, float("nan"), float("inf"), 1e-320)
VALUES = (*WORDS, *NUMBERS, None, True, [], [[]], {}, {"x": 1}, ["x"], [None])


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value can be spoilt."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(item, (*path, key))


def spoilt(document: Any, rng: random.Random) -> Any:
    """The document with one field replaced, removed, renamed or doubled."""
    *above, last = rng.choice([path for path in paths(document) if path])
    holder = document
    for key in above:
        holder = holder[key]
    match rng.choice(("replace", "replace", "replace", "remove", "rename", "double")):
        case "remove":
            del holder[last]
        case "rename" if isinstance(holder, dict):
            holder[rng.choice(WORDS)] = holder.pop(last)
        case "double" if isinstance(holder, list):
            holder.append(holder[last])
        case _:
            holder[last] = rng.choice(VALUES)
    return document


def field(file: Path, rng: random.Random) -> None:
    """One field of a JSON file or of one of its lines; of YAML, some bytes."""
    text = file.read_text()
    if file.suffix == ".json":
        file.write_text(json.dumps(spoilt(json.loads(text), rng)))
    elif file.suffix == ".jsonl":
        lines = text.splitlines()
        number = rng.randrange(len(lines))
        lines[number] = json.dumps(spoilt(json.loads(lines[number]), rng))
        file.write_text("\n".join(lines) + "\n")
    else:
        noise(file, rng)


def noise(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    file.write_bytes(data)


def cut(file: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(file.stat().st_size))


def deep(file: Path, rng: random.Random) -> None:
    file.write_bytes(rng.choice((b"[", b'{"x":', b"- ")) * 200_000 + b"\n")


def fifo(file: Path, rng: random.Random) -> None:
    file.unlink()
    os.mkfifo(file)


def folder(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.mkdir()


def endless(file: Path, rng: random.Random) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def huge(file: Path, rng: random.Random) -> None:
    os.truncate(file, 1 << 40)


def linked(file: Path, rng: random.Random) -> None:
    """The same content, outside of the run."""
    outside = OUTSIDE / file.name
    shutil.move(file, outside)
    file.symlink_to(outside.resolve())


def linked_beside(file: Path, rng: random.Random) -> None:
    """What the run would write, or a folder of it, leads outside."""
    name = rng.choice(
        ("report.html", "check.json", "results.csv", "results.md", "epochs.csv", "logs", "samples", ".lock")
    )
    link, outside = file.parent / name, OUTSIDE / name
    if link.is_dir():
        shutil.rmtree(link)
        outside.mkdir()
    else:
        link.unlink(missing_ok=True)
        outside.write_text("not the run's")
    link.symlink_to(outside.resolve())


SPOILERS: tuple[Callable[[Path, random.Random], None], ...] = (
    *[field] * 20, noise, cut, deep, fifo, folder, endless, huge, linked, linked_beside, linked_beside,
)  # fmt: skip


def outside() -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in OUTSIDE.rglob("*")}


def no_worker(*_: Any) -> Any:
    raise WorkerError("no worker is started here")


def hangs(*_: Any) -> Any:
    raise TimeoutError("the command hangs")


def interrupted_check(root: Path) -> None:
    """A check after a pair and a seed, in a repository of one file, which the check is of."""
    repo = Repo(root)
    repo.put("gated.yaml", MATRIX)
    repo.git("add", "gated.yaml")
    repo.git("commit", "--quiet", "-m", "first")
    tree, cell = Tree(label="main", commit=repo.git("rev-parse", "HEAD")), make_cell("mlp")
    empty, matrix = hashlib.sha256().hexdigest(), parse()
    check = Sides(a=tree, b=tree, matrix=matrix, cells=expand(matrix), budget_s=900.0, content_sha256=empty)
    manifest = make_manifest(run_id=Path(CHECKED).name, matrix=matrix, matrix_path="gated.yaml", check=check, order=())
    folder = RunFolder.create(root / "checks", replace(manifest, trials=(), status="interrupted"))
    members = [f"{cell.id}/p1@{name}" for name in "AB"]
    folder.append(make_session(members, [[10.0, 10.5], [10.0, 10.1]], group=cell.id, seconds=9.0))
    for name in "AB":
        folder.append(trial(cell, 0, name))


@pytest.fixture
def whole(place, monkeypatch):  # noqa: F811
    """A folder to copy from, beside the one that is worked in; no worker is started, nothing waits for ever."""
    main(shlex.split("baseline update 20010801T101500Z-before --output baseline.json -o gated --reason first"))
    main(shlex.split(f"run --resume {ID} -q"))
    interrupted_check(place)
    for room in (runner, sides):
        monkeypatch.setattr(room, "LocalWorker", no_worker)
    monkeypatch.setattr(sides, "ask", lambda *_: sides.Imports(PROTOCOL_VERSION, {sides.PACKAGE: "/elsewhere"}))
    before = signal.signal(signal.SIGALRM, hangs)
    yield place.rename(place.with_name("whole"))
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("batch", range(COUNT // BATCH))
def test_a_spoilt_folder_ends_in_a_result_or_in_one_clear_line(batch, whole, capsys):
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        rng = random.Random(f"{SALT} {number}")
        name = rng.choice(sorted(READERS))
        command, spoiler = rng.choice(READERS[name]), rng.choice(SPOILERS)
        with tempfile.TemporaryDirectory(dir=whole.parent) as here, contextlib.chdir(here):
            files = [whole / word for word in command.split() if (whole / word).is_file()]
            runs = [next(whole.glob(f"*/{run_id}")) for run_id in RUN_ID.findall(command)]
            files += [whole / name for name in (".git", "gated.yaml") if command.startswith("check --resume")]
            for source in {whole / name if "/" not in name else (whole / name).parent, *files, *runs}:
                copy(source, Path(source.relative_to(whole)))
            OUTSIDE.mkdir()
            spoiler(Path(name), rng)
            capsys.readouterr()
            before = outside()
            signal.alarm(60)
            code = main(shlex.split(command))
            signal.alarm(0)
            out, err = capsys.readouterr()
            said = f"mutant {number} of salt {SALT}: {spoiler.__name__} {name}: {command}: exit code {code}\n{err}"
            assert code in range(6), said
            assert out.strip() or err.strip(), said
            clear = any(line.startswith(("mnist-bench: ", "small.yaml:", f"{name}: ")) for line in err.splitlines())
            assert code != 2 or clear, said
            assert {c for c in out + err if not c.isprintable()} <= {"\n"}, said
            assert not [line for line in (out + err).splitlines() if line.lstrip().startswith("::")], said
            assert outside() == before, said


def copy(source: Path, target: Path) -> None:
    """Raw step times, which no mutant changes, are the same files."""
    if source.is_dir():
        target.mkdir(parents=True)
        for path in source.iterdir():
            copy(path, target / path.name)
    elif source.suffix == ".npy":
        target.hardlink_to(source)
    else:
        shutil.copy(source, target)
