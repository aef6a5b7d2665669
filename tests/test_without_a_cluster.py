"""What docs/scale.md has for those without a cluster is executed; Slurm, GitHub and ssh are made up."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_docs import blocks, commands
from test_workflows import linted

from mnist_bench.analysis.summary import Run
from mnist_bench.cells import trials_of
from mnist_bench.disk.folder import TRIALS, RunFolder

ROOT = Path(__file__).resolve().parent.parent
SECTION = (ROOT / "docs" / "scale.md").read_text("utf-8").partition("\n## Without a cluster\n")[2].partition("\n## ")[0]
PARTS = dict(part.split("\n", 1) for part in SECTION.split("\n### ")[1:])
MATRIX = """{version: 1, dataset: synthetic, epochs: 1, seeds: 3, models: [mlp], devices: [cpu], batch_sizes: [10, 20],
variants: [eager], timing: {budget_seconds: 1}}"""
REAL = f'#!/bin/sh\nexec {sys.executable} -m mnist_bench "$@"\n'
# The program, but for what takes long: workers that are made up, 60 synthetic digits, nothing fetched.
PRETENDING = f"""#!{sys.executable}
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from group_kit import FakeWorker
from mnist_bench.cli import main
from mnist_bench.data import synthetic
from mnist_bench.running import runner
synthetic.SIZES = 40, 20
runner.local_worker = lambda plan, environ, interrupts, spec: FakeWorker(spec)
sys.exit(0 if sys.argv[1:3] == ["data", "fetch"] else main())
"""
SBATCH = """#!/bin/sh
echo "$*" >> queue
case "$*" in *--parsable*) ;; *) printf 'Submitted batch job ' ;; esac
grep -c "" queue
"""
SSH = '#!/bin/sh\ncd "hosts/$1" && shift && exec sh -c "$*"\n'
RSYNC = """#!/bin/sh
at() { case $1 in *:*) echo "hosts/${1%%:*}/${1#*:}" ;; *) echo "$1" ;; esac; }
from=$(at "$2") to=$(at "$3")
case $from in */) from=$from. ; [ -d "$to" ] || mkdir "$to" ;; esac
exec cp -a "$from" "$to"
"""


class Shell:
    """A bash in a folder with a matrix; the programs that are given by their text come first on its path."""

    def __init__(self, folder, environ, programs):
        self.folder, own = folder, folder / "bin"
        own.mkdir(parents=True)
        (folder / "benchmarks.yaml").write_text(MATRIX)
        for name, text in programs.items():
            (own / name.replace("_", "-")).write_text(text)
            (own / name.replace("_", "-")).chmod(0o755)
        self.environ = {**environ, "PATH": f"{own}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def run(self, text, code=0, **environ):
        how = {"cwd": self.folder, "env": self.environ | environ, "capture_output": True, "text": True}
        done = subprocess.run(["bash", "-e", "-c", text], **how, check=False)
        assert done.returncode == code, f"{text}: {done.stdout}{done.stderr}"

    def work(self, ended, code=0):
        """A job of the queue, all its tasks, in an order that Slurm may take: the last first, if nothing forbids.

        Args:
            ended: the ids of the jobs that have, to which its own is added.
        """
        left = dict(enumerate((self.folder / "queue").read_text().splitlines(), 1))
        left = {job: line for job, line in left.items() if job not in ended}
        after = {job: re.findall(r"--dependency=afterany:(\d+)", line) for job, line in left.items()}
        job = max(job for job in left if left.keys().isdisjoint(map(int, after[job])))
        script = left[job].split()[-1]
        directives = re.findall("^#SBATCH .*", (self.folder / script).read_text(), re.MULTILINE)
        asked = dict(re.findall(r"--(\w+)=(\S+)", " ".join([*directives, left[job]])))
        first, _, last = asked.get("array", "0").partition("-")
        for task in range(int(first), int(last or first) + 1):
            log = asked["output"].replace("%a", str(task))
            self.run(f"sh {script} > {log} 2>&1", code, SLURM_ARRAY_TASK_ID=str(task))
        ended.add(job)
        return script

    def merged(self, shards):
        """What was merged is of so many shards, and has every trial of the matrix once."""
        run = Run.read(RunFolder.open(self.folder / "results", "latest"))
        assert len(run.manifest.options.merged_from) == shards
        assert sorted(trial.id for trial in run.trials) == sorted(trials_of(run.manifest.matrix))
        assert {trial.status for trial in run.trials} == {"ok"}


@pytest.fixture
def pretending(tmp_path, bench_environ):
    return lambda name, **own: Shell(tmp_path / name, bench_environ(name), {"mnist_bench": PRETENDING} | own)


def test_slurm(pretending):
    shell, ended = pretending("slurm", sbatch=SBATCH), set()
    *before, again = [each.text for each in commands(PARTS["Slurm"])]
    for text in before:
        shell.run(text)
    assert shell.work(ended) == "shard.sh"
    folder = RunFolder.open(shell.folder / "shards" / "3", "latest")
    folder.update_manifest(status="running")  # as a kill leaves it
    (folder.path / TRIALS).write_bytes(b"")
    assert shell.work(ended, code=2) == "merge.sh"
    assert f"{folder.run_id}: is running, not complete: finish it first" in (shell.folder / "merge.log").read_text()
    shell.run(again)
    assert [shell.work(ended), shell.work(ended)] == ["shard.sh", "merge.sh"]
    shell.merged(4)


@pytest.mark.parametrize(
    "program", [PRETENDING, pytest.param(REAL, marks=pytest.mark.bars)], ids=["pretending", "real"]
)
def test_plain_ssh(program, pretending):
    shell = pretending("desk", ssh=SSH, rsync=RSYNC, mnist_bench=program)
    for host in ("one", "two"):
        shutil.copytree(shell.folder / "bin", shell.folder / "hosts" / host / ".venv" / "bin")
    for each in commands(PARTS["Plain ssh"]):
        shell.run(each.text)
    shell.merged(2)


def test_github(pretending, tmp_path):
    """Each job has a folder of its own, and in it what it checks out or downloads."""
    (block,) = [each for each in blocks(PARTS["GitHub's matrix jobs"]) if each.language == "yaml"]
    (path := tmp_path / "shards.yml").write_text(block.text)
    linted("workflows", path)
    jobs, artifacts, summary = yaml.safe_load(block.text)["jobs"], tmp_path / "artifacts", tmp_path / "summary.md"

    def work(name, shard=""):
        shell = pretending(f"{name}{shard}", pip="#!/bin/sh\n")
        for step in yaml.safe_load(yaml.dump(jobs[name]["steps"]).replace("${{ matrix.shard }}", shard)):
            what, given = step.get("uses", "").partition("@")[0], step.get("with", {})
            environ = {key: str(value) for key, value in step.get("env", {}).items()}
            shell.run(step.get("run", ""), GITHUB_STEP_SUMMARY=str(summary), **environ)
            if what == "actions/upload-artifact":
                for found in shell.folder.glob(given["path"]):
                    shutil.copytree(found, artifacts / given["name"] / found.name)
            if what == "actions/download-artifact":
                for found in artifacts.glob(given["pattern"]):
                    shutil.copytree(found, shell.folder / given["path"] / found.name)
        return shell

    for shard in jobs["shard"]["strategy"]["matrix"]["shard"]:
        work("shard", str(shard))
    work(jobs["merge"]["needs"].replace("shard", "merge")).merged(3)
    assert "| mlp | cpu | 20 | eager |" in summary.read_text("utf-8")
    assert (artifacts / "merged").is_dir()
