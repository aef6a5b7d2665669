"""action.yml: sound, safe, and its steps do what they say in a repository of their own."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from check_kit import MATRIX, Repo, clean_environ

ROOT = Path(__file__).resolve().parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
DEFAULTS = {f"inputs.{name}": each["default"] for name, each in ACTION["inputs"].items()}
pytestmark = pytest.mark.skipif(None in map(shutil.which, ("git", "bash")), reason="needs git and bash")


@pytest.fixture
def repo(tmp_path):
    """A repository with a matrix."""
    repo = Repo(tmp_path / "repo")
    repo.put("benchmarks.yaml", MATRIX)
    repo.commit()
    return repo


@pytest.fixture
def act(repo, tmp_path, bench_environ):
    """Runs a step of the action as a runner would, with stand-ins for programs: ``act(name, {program: script})``.

    Gives its exit code, and the lines that the stand-ins say on file descriptor 9.
    """
    bin, outputs, calls = tmp_path / "bin", tmp_path / "outputs", tmp_path / "calls"
    bin.mkdir()
    outputs.touch()
    known = {**DEFAULTS, "github.repository": "o/r", "github.event.pull_request.number": "7", "github.token": "t"}
    known["runner.temp"] = str(tmp_path)

    def value(found):
        said = dict(line.split("=") for line in outputs.read_text().splitlines())
        return {**known, **{f"steps.check.outputs.{key}": each for key, each in said.items()}}[found[1]]

    def act(name, programs, **inputs):
        known.update({f"inputs.{key}": each for key, each in inputs.items()})
        for program, script in programs.items():
            (bin / program).write_text(f"#!/bin/sh\n{script}\n")
            (bin / program).chmod(0o755)
        environ = clean_environ(**bench_environ("action"), GITHUB_OUTPUT=str(outputs), GITHUB_ACTION_PATH=str(ROOT))
        own = {key: re.sub(r"\$\{\{ (\S+) \}\}", value, text) for key, text in STEPS[name].get("env", {}).items()}
        environ |= own | {"PATH": f"{bin}:{environ['PATH']}", "GITHUB_BASE_REF": ""}
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", f"exec 9> {calls}\n{STEPS[name]['run']}"]
        done = subprocess.run(words, env=environ, cwd=repo.root, capture_output=True, text=True, check=False)
        return done.returncode, calls.read_text().splitlines()

    return act


SAYS = 'echo "$(basename "$0") $*" >&9'
BENCH = f'exec "{sys.executable}" -m mnist_bench "$@"'


def test_it_is_of_the_schema_and_safe():
    zizmor = Path(sysconfig.get_path("scripts")) / "zizmor"
    for words in (
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-actions"],
        [str(zizmor), "--offline", "--no-progress", "--no-config"],
    ):
        done = subprocess.run([*words, str(ROOT / "action.yml")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("has_torch", "called"),
    [(True, f"python3 -m pip install {ROOT}"), (False, f"python3 {ROOT}/scripts/install.py")],
)
def test_a_torch_that_is_there_is_kept(act, has_torch, called):
    script = f'case "$*" in *show*) exit {int(not has_torch)} ;; esac\n{SAYS}'
    assert act("Install", {"python3": script}) == (0, [called])


def test_flags_are_those_of_the_inputs_and_the_verdict_is_the_exit_code(act, tmp_path):
    code, (fetched, checked) = act(
        "Check",
        {"mnist-bench": f'{SAYS}\n[ "$1" != check ] || exit 3'},
        matrix="my matrix.yaml",
        against="v1",
        arguments="--filter model=mlp\n--allow-plugins",
    )
    folder = tmp_path / "mnist-bench"
    assert code == 0
    assert fetched == f"mnist-bench data fetch --dataset mnist --data-dir {folder}/data"
    assert checked == (
        "mnist-bench check my matrix.yaml --against v1 --budget 20m --filter model=mlp --allow-plugins "
        f"--data-dir {folder}/data -o {folder} --junit {folder}/junit.xml --comment {folder}/comment.md"
    )
    assert act("Verdict", {})[0] == 3


def test_a_wish_that_is_none_is_refused_before_anything_is_measured(act):
    assert act("Check", {"mnist-bench": SAYS}, comment="sometimes") == (2, [])


@pytest.mark.parametrize(
    ("when", "code", "there", "called"),
    [
        ("changes", 0, "", []),
        ("changes", 3, "", ["repos/o/r/issues/7/comments"]),
        ("changes", 0, "11\n12", ["--method PATCH repos/o/r/issues/comments/11"]),
        ("always", 0, "", ["repos/o/r/issues/7/comments"]),
    ],
)
def test_it_comments_where_something_is_to_be_said_and_once(act, tmp_path, when, code, there, called):
    check = f"[ $1 = data ] || {{ echo verdicts > {tmp_path}/mnist-bench/comment.md; exit {code}; }}"
    (tmp_path / "mnist-bench").mkdir()
    act("Check", {"mnist-bench": check})
    gh = f"case \"$*\" in *--jq*) printf '{there}' ;; *) {SAYS} ;; esac"
    body = tmp_path / "mnist-bench" / "body.md"
    assert act("Comment", {"gh": gh}, comment=when) == (
        0,
        [f"gh api {each} -F body=@{body} --silent" for each in called],
    )
    assert body.read_text() == "<!-- mnist-bench gate -->\nverdicts\n"


@pytest.mark.usefixtures("one_core")
def test_the_program_takes_what_the_action_says(act, tmp_path):
    """So short a budget may not suffice; nothing else may be amiss."""
    fetched = f'[ "$1" != data ] || exit 0\n{BENCH}'
    flags = "--filter model=mlp --seeds 1 --offline"
    folder = tmp_path / "mnist-bench"
    assert act("Check", {"mnist-bench": fetched}, against="HEAD", budget="10s", arguments=flags) == (0, [])
    assert act("Verdict", {})[0] in (0, 4)
    assert "mlp" in (folder / "comment.md").read_text()
    assert "mlp" in (folder / "junit.xml").read_text()
