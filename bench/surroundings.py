"""Every command of the README where something is missing, closed, full or narrow: no traceback, the right exit code.

A small run is measured once; then each command is called in each of the surroundings, in a copy of the folder. There
must be no traceback, an exit code that the surrounding allows, no file that a killed writer would leave, nothing in
TMPDIR. Exit code 0: all of it holds; 1: the lines say what did not. ``disk full`` needs root (it mounts a small tmpfs).
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mnist_bench.machine.environment import MADE_HOME

MATRIX = """version: 1
name: small
dataset: synthetic
epochs: 1
seeds: 1
models: [mlp]
devices: [cpu, cuda]
batch_sizes: [1000]
variants: [eager, channels-last]
timing: {budget_seconds: 1}
expect: [{model: mlp, min_accuracy: 0.1}]
"""
BASE = (
    "run small.yaml --no-progress",
    "run small.yaml --no-progress",
    "run small.yaml --no-progress --seeds 2 --shard 1/2 --output-dir shards",
    "run small.yaml --no-progress --seeds 2 --shard 2/2 --output-dir shards",
    "baseline update --output baseline.json --reason first",
)
COMMANDS = (
    "run small.yaml",
    "run --resume latest",
    "plan small.yaml",
    "compare latest --by variant",
    "compare results/2* --json",
    "export latest --format junit",
    "export latest --format parquet --output run.parquet",
    "check latest --baseline baseline.json",
    "check small.yaml --against HEAD --seeds 1 --budget 20s",
    "data verify --dataset synthetic",
    "data show --dataset synthetic",
    "data synthesize --data-dir drawn",
    "report latest",
    "history",
    "history mlp --page history.html",
    "baseline update latest --output new.json --reason second",
    "merge shards/2*",
    "doctor",
    "list models",
    "list runs",
    "show",
    "init --output mine.yaml",
    "completion bash",
    "schema",
    "run --help",
    "frobnicate",
)
LONG = ("run small", "check small", "data synth")  # in these, not in all surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrounding:
    """``shell``: how the command stands in a shell; ``codes``: exit codes beside those of a quiet place."""

    shell: str = "{}"
    unset: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    codes: tuple[int, ...] = ()
    full: bool = False
    read_only: bool = False


SURROUNDINGS = {
    "quiet": Surrounding(),
    "no stdout": Surrounding(shell="{} >&-"),
    "no stderr": Surrounding(shell="{} 2>&-"),
    "stdout full": Surrounding(shell="{} >/dev/full", codes=(1,)),
    "ASCII": Surrounding(environ={"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}),
    "Latin-1": Surrounding(environ={"PYTHONIOENCODING": "latin-1"}),
    "no HOME": Surrounding(
        shell="unshare --user --map-user=12345 --map-group=12345 {}", unset=("HOME", "XDG_CACHE_HOME")
    ),
    "reader gone": Surrounding(shell="{} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"),
    "40 columns": Surrounding(environ={"COLUMNS": "40"}),
    "disk full": Surrounding(full=True, codes=(1, 2)),
    "read-only": Surrounding(read_only=True, codes=(1, 2)),
}


def main(argv: Sequence[str] | None = None) -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--only", nargs="+", choices=SURROUNDINGS, default=list(SURROUNDINGS))
    flags.add_argument("--commands", nargs="+", default=list(COMMANDS), help="default: those of the README")
    args = flags.parse_args(argv)
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        made = base / "made"
        made.mkdir()
        (made / "small.yaml").write_text(MATRIX)
        shutil.copytree(Path(__file__).parents[1] / "mnist_bench", made / "mnist_bench")
        git(made, "init", "-q")
        git(made, "add", "-A")
        git(made, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
        for command in BASE:
            if (done := call(command, made, base, Surrounding()))[0]:
                print(f"{command}: {done}", file=sys.stderr)
                return 1
        for command in args.commands:
            expected = None
            for title in dict.fromkeys(("quiet", *args.only)):
                if (
                    command.startswith(LONG)
                    and len(args.only) > 5
                    and title in ("Latin-1", "stdout full", "40 columns")
                ):
                    continue
                found = attempt(command, made, base, SURROUNDINGS[title], expected)
                expected = found.code if title == "quiet" else expected
                faults += len(found.faults)
                mark = "; ".join(found.faults) or "ok"
                print(f"{title:12} {found.code:4}  {command:60} {mark}", flush=True)
    return min(faults, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    code: int
    faults: tuple[str, ...]


def attempt(command: str, made: Path, base: Path, surrounding: Surrounding, expected: int | None) -> Found:
    """One call in a copy of the folder."""
    with place(made, base, surrounding) as folder:
        code, output = call(command, folder, base, surrounding)
        faults = []
        if "Traceback" in output or "Error ignored" in output or "Exception ignored" in output:
            faults.append("traceback: " + output[-600:].replace("\n", " | "))
        if expected is not None and code != expected and code not in surrounding.codes:
            faults.append(f"exit code {code}, not {expected}: {output[-300:]!r}")
        if code and not output.strip() and surrounding.shell == "{}":
            faults.append("silent")
        left = [str(path) for path in folder.rglob(".*") if path.name.endswith(".tmp") or "fetch-" in path.name]
        # A user without a home is given one there, which stays.
        left += [str(path) for path in (base / "tmp").iterdir() if not path.name.startswith(MADE_HOME)]
        if left:
            faults.append(f"left behind: {left[:3]}")
            shutil.rmtree(base / "tmp")
    return Found(code=code, faults=tuple(faults))


@contextmanager
def place(made: Path, base: Path, surrounding: Surrounding) -> Iterator[Path]:
    """A copy of the folder; on a disk of its own that has no space left, or owned by somebody else."""
    folder = base / "here"
    folder.mkdir()
    try:
        if surrounding.full:
            size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file() and not path.is_symlink())
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size * 2 + (4 << 20)}", "none", folder], check=True)
        shutil.copytree(made, folder, symlinks=True, dirs_exist_ok=True)
        if surrounding.full:
            fill(folder / "full")
        if surrounding.read_only:
            subprocess.run(["mount", "--bind", folder, folder], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield folder
    finally:
        if surrounding.full or surrounding.read_only:
            subprocess.run(["umount", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def fill(path: Path) -> None:
    """All the space that a disk has left."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            return


def call(command: str, folder: Path, base: Path, surrounding: Surrounding) -> tuple[int, str]:
    """Exit code and output; a minute and a half at most, without a word on whether that is long."""
    (base / "tmp").mkdir(exist_ok=True)
    (base / "tmp").chmod(0o777)
    environ = {**os.environ, "XDG_CACHE_HOME": str(base / "cache"), "TMPDIR": str(base / "tmp"), **surrounding.environ}
    environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    for name in surrounding.unset:
        environ.pop(name, None)
    words = f"{shlex.quote(sys.executable)} -m mnist_bench {command}"
    shell = ["bash", "-c", surrounding.shell.format(words)]
    done = subprocess.run(
        shell, cwd=folder, env=environ, capture_output=True, text=True, errors="replace", timeout=600, check=False
    )
    return done.returncode, done.stdout + done.stderr


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True)


if __name__ == "__main__":
    sys.exit(main())
