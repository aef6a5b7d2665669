"""Two questions with known answers, put to pyperf, pytest-benchmark, hyperfine, asv and mnist_bench.

Are two equal codes told apart, and is one found whose step is slower by 5 %? Each tool compares two versions as its
documentation says, and judges by its own rule; a verdict is all that it takes from nothing to the answer. The tool that
has used the least time is asked next, both questions in random order. Needs ``pip install -e '.[peers]'``, git and
hyperfine. Every verdict goes to --json, a table in Markdown to stdout.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench import report
from bench.live import EAGER, Watched, Workshop, time_session
from mnist_bench import records
from mnist_bench.analysis.ratios import SessionIndex, speed_up
from mnist_bench.machine import environment
from mnist_bench.running.process import Interrupts

SLOW = 0.05
STEPS = 150  # of a process that hyperfine times: about as long as the start of Python and torch
BUDGET_S = 10.0  # token seconds of a side of mnist_bench
SETUP = "from bench.peer_work import training; step = training()"
Says = Literal["slower", "faster", "same"]
Answer = tuple[float, Says]  # ln(B / A), and what the tool says of B


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a tool answered: ``log_ratio`` is ln(B / A) of its own figure, ``slow`` the share that B was slower by."""

    tool: str
    slow: float
    log_ratio: float
    says: Says
    seconds: float


def ran(words: Sequence[str | Path], slow: float, folder: Path, codes: Sequence[int] = (0,)) -> tuple[int, str]:
    """A program on side A (``slow`` 0) or B; its exit code, which must be one of ``codes``, and what it said."""
    path = os.pathsep.join(filter(None, [str(report.ROOT), os.environ.get("PYTHONPATH")]))
    environ = {**os.environ, "PYTHONPATH": path, "PEERS_SLOW": str(slow)}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, env=environ, cwd=folder, check=False)
    if done.returncode not in codes:
        raise RuntimeError(f"{words}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.returncode, done.stdout + done.stderr


def word(slower: bool, faster: bool) -> Says:
    return "slower" if slower else "faster" if faster else "same"


def python(*words: str | Path) -> list[str | Path]:
    return [sys.executable, *words]


# ── the tools, each as its documentation compares two versions ───────────────────────────────────────────────────────


def pyperf(folder: Path, slow: float) -> Answer:
    """``-o`` for each version, then ``compare_to``, which tells by Student's t-test what is significant."""
    (folder / "steps.py").write_text(f"import pyperf\n{SETUP}\npyperf.Runner().bench_func('step', step)\n")
    for name, share in (("a", 0.0), ("b", slow)):
        ran(python("steps.py", "--inherit-environ=PYTHONPATH,PEERS_SLOW", "-o", f"{name}.json"), share, folder)
    _, said = ran(python("-m", "pyperf", "compare_to", "a.json", "b.json"), 0.0, folder)

    def mean(name: str) -> float:
        (found,) = json.loads((folder / f"{name}.json").read_text())["benchmarks"]
        return statistics.mean(value for run in found["runs"] for value in run.get("values", ()))

    return math.log(mean("b") / mean("a")), word("x slower" in said, "x faster" in said)


def pytest_benchmark(folder: Path, slow: float) -> Answer:
    """``--benchmark-save``, then ``--benchmark-compare`` and ``--benchmark-compare-fail=min:5%``: fails on slower."""
    (folder / "test_step.py").write_text(f"{SETUP}\ndef test_step(benchmark): benchmark(step)\n")
    base = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-storage=stored", "test_step.py")
    ran([*base, "--benchmark-save=a"], 0.0, folder)
    fail = ["--benchmark-save=b", "--benchmark-compare=0001", "--benchmark-compare-fail=min:5%"]
    _, said = ran([*base, *fail], slow, folder, range(256))  # it ends as an internal error does
    stored = [json.loads(path.read_text()) for path in sorted(folder.glob("stored/*/*.json"))]
    a, b = (one["benchmarks"][0]["stats"]["min"] for one in stored)
    return math.log(b / a), word("Performance has regressed" in said, False)


def hyperfine(folder: Path, slow: float) -> Answer:
    """Two commands side by side; "B ran 1.05 ± 0.02 times" slower: a difference where that reaches beyond 1."""
    commands = [f"env PEERS_SLOW={share} {sys.executable} -m bench.peer_work {STEPS}" for share in (0.0, slow)]
    ran(["hyperfine", "--warmup", "1", "--export-json", "both.json", *commands], 0.0, folder)
    a, b = json.loads((folder / "both.json").read_text())["results"]
    ratio = b["mean"] / a["mean"]
    error = ratio * math.hypot(a["stddev"] / a["mean"], b["stddev"] / b["mean"])
    return math.log(ratio), word(ratio - error > 1, ratio + error < 1)


def asv(folder: Path, slow: float) -> Answer:
    """``asv continuous --factor 1.05`` of two commits; its environment was made before."""
    project = folder.parent / "asv"
    b = "slower" if slow else "equal"
    words = python("-m", "asv", "continuous", "--factor", str(1 + SLOW), "--interleave-rounds", "base", b)
    code, said = ran(words, 0.0, project, (0, 1))

    def seconds(tag: str) -> float:
        commit = ran(["git", "rev-parse", f"{tag}^{{commit}}"], 0.0, project)[1].strip()
        (found,) = project.glob(f".asv/results/*/{commit[:8]}-*.json")
        return float(json.loads(found.read_text())["results"]["steps.Steps.time_step"][0][0])

    return math.log(seconds(b) / seconds("base")), word(code == 1, "PERFORMANCE INCREASED" in said)


def asv_project(project: Path) -> None:
    """A repository with three tags, base, equal and slower, and an environment for asv, to which packages are lent."""
    lent = [path for path in sys.path if Path(path).name == "site-packages"]
    config = {
        "version": 1,
        "project": "steps",
        "repo": ".",
        "branches": ["main"],
        "environment_type": "virtualenv",
        "build_command": [],
        "install_command": ["in-dir={build_dir} python install.py"],
        "uninstall_command": [],
        "env_dir": ".asv/env",
        "results_dir": ".asv/results",
    }
    install = "import pathlib, shutil, site\nplace = pathlib.Path(site.getsitepackages()[0])\n"
    install += f"place.joinpath('lent.pth').write_text({os.linesep.join([*lent, str(report.ROOT)])!r})\n"
    install += "shutil.copy('slow.py', place)\n"
    steps = "class Steps:\n    def setup(self):\n        from bench.peer_work import training\n        import slow\n"
    steps += "        self.step = training(slow.SHARE)\n    def time_step(self):\n        self.step()\n"
    files = {"asv.conf.json": json.dumps(config), "install.py": install, "benchmarks/steps.py": steps}
    for name, text in {**files, "benchmarks/__init__.py": "", "slow.py": "SHARE = 0.0\n"}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    git = ["git", "-c", "user.name=peers", "-c", "user.email=peers@localhost"]
    ran([*git, "init", "-q", "-b", "main"], 0.0, project)
    for tag in ("base", "equal", "slower"):
        if tag == "slower":
            (project / "slow.py").write_text(f"SHARE = {SLOW}\n")
        ran([*git, "add", "asv.conf.json", "install.py", "benchmarks", "slow.py"], 0.0, project)
        ran([*git, "commit", "-q", "--allow-empty", "-m", tag], 0.0, project)
        ran([*git, "tag", tag], 0.0, project)
    ran(python("-m", "asv", "machine", "--yes"), 0.0, project)
    ran(python("-m", "asv", "setup"), 0.0, project, (0, 1))  # it gives 1 where all is well


class Slowed(Watched):
    """The real worker, its step slowed by PEERS_SLOW."""

    def _command(self, requests: int, replies: int, lifeline: int) -> list[str]:
        command = super()._command(requests, replies, lifeline)
        return ["bench.peer_work" if part == "mnist_bench.worker" else part for part in command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop(Workshop):
    """A workshop whose side b is slower."""

    slow: float

    def launch(self, spec: records.TrialSpec) -> Watched:
        environ = {**self.environ, "PEERS_SLOW": str(self.slow if spec.variant.name == "b" else 0.0)}
        log = self.folder / f"{spec.id.replace('/', '+')}.log"
        return Slowed(spec, log, environ, records.Limits().timeout_seconds, self.interrupts)


def mnist_bench(folder: Path, slow: float) -> Answer:
    """A timing session of two fresh processes, as ``run`` has it: a difference where the 95 % interval is beyond 1."""
    with Interrupts() as interrupts:
        known = report.open_workshop(argparse.Namespace(data_dir=None), interrupts)
        shop = Shop(data=known.data, folder=folder, environ=known.environ, interrupts=interrupts, slow=slow)
        seed = random.randrange(1 << 31)
        a, b = specs = [shop.spec("lenet5", replace(EAGER, name=name), seed) for name in "ab"]
        in_turn = specs if seed % 2 else specs[::-1]  # the one that is started first tends to be slower
        precision = records.Timing().precision
        timed = time_session(in_turn, shop, precision=precision, budget_s=BUDGET_S, reference="a")
    found = speed_up([(b.id, a.id)], SessionIndex([timed.session]))
    if found is None:
        raise RuntimeError("a session without a common round")
    low, high = found.interval.low, found.interval.high  # None: too few rounds to tell
    return math.log(found.interval.estimate), word(low is not None and low > 1, high is not None and high < 1)


TOOLS: Mapping[str, Callable[[Path, float], Answer]] = {
    "pytest-benchmark": pytest_benchmark,
    "hyperfine": hyperfine,
    "asv": asv,
    "pyperf": pyperf,
    "mnist_bench": mnist_bench,
}


# ── the experiment ───────────────────────────────────────────────────────────────────────────────────────────────────


def main(argv: Sequence[str] | None = None) -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS), help="default: all")
    flags.add_argument("--minutes", type=report.count, default=20, help="of all tools together (default: 20)")
    flags.add_argument("--json", type=Path, default=report.ROOT / "docs" / "peers.json", help="default: %(default)s")
    args = flags.parse_args(argv)
    verdicts: list[Verdict] = []
    document: dict[str, Any] = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": asdict(environment.describe(os.environ, report.ROOT)),
        "versions": versions(),
    }
    with Interrupts() as interrupts:
        report.open_workshop(argparse.Namespace(data_dir=None), interrupts)  # draws the digits, where there is no MNIST
    with tempfile.TemporaryDirectory() as root:
        if "asv" in args.tools:
            asv_project(Path(root) / "asv")
        spent = dict.fromkeys(args.tools, 0.0)
        while min(spent.values()) == 0 or sum(spent.values()) < 60 * args.minutes:
            tool = min(args.tools, key=spent.__getitem__)
            for slow in random.sample((0.0, SLOW), 2):
                verdicts.append(one := asked(tool, slow, Path(root)))
                spent[tool] += one.seconds
                report.say(f"{sum(spent.values()) / 60:.1f} min {one}")
                document["verdicts"] = [asdict(one) for one in verdicts]
                args.json.write_text(json.dumps(document, indent=1) + "\n")
    print(table(verdicts))
    return 0


def asked(tool: str, slow: float, root: Path) -> Verdict:
    folder = Path(tempfile.mkdtemp(dir=root))
    begin = time.perf_counter()
    log_ratio, says = TOOLS[tool](folder, slow)
    seconds = time.perf_counter() - begin
    shutil.rmtree(folder)
    return Verdict(tool, slow, log_ratio, says, seconds)


def versions() -> dict[str, str]:
    from importlib.metadata import version

    found = {name: version(name) for name in ("pyperf", "pytest-benchmark", "asv", "torch")}
    return {**found, "hyperfine": ran(["hyperfine", "--version"], 0.0, report.ROOT)[1].split()[-1]}


def table(verdicts: Sequence[Verdict]) -> str:
    """Of each tool: rms of ln(B / A) of equal codes, how often it told them apart, how often the slower was found."""
    rows = [
        "| tool | same code, spread of B / A | told apart | 5 % slower: median of B / A | found | seconds a verdict |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for tool in dict.fromkeys(one.tool for one in verdicts):
        own = [one for one in verdicts if one.tool == tool]
        same, slower = ([one for one in own if bool(one.slow) is which] for which in (False, True))
        rms = math.sqrt(statistics.mean(one.log_ratio**2 for one in same))
        cells = [
            f"{100 * rms:.1f} %",
            f"{sum(one.says != 'same' for one in same)} of {len(same)}",
            f"{math.exp(statistics.median(one.log_ratio for one in slower)):.3f}" if slower else "",
            f"{sum(one.says == 'slower' for one in slower)} of {len(slower)}",
            f"{statistics.median(one.seconds for one in own):.0f}",
        ]
        rows.append(f"| {tool} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
