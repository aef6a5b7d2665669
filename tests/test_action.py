"""action.yml: its steps do what they say in a repository of their own (test_workflows.py: it is sound and safe)."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from check_kit import MATRIX, Repo, clean_environ, program

ROOT = Path(__file__).resolve().parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
SAYS = 'echo "$(basename "$0") $*" >&9'
pytestmark = pytest.mark.skipif(None in map(shutil.which, ("git", "bash")), reason="needs git and bash")


@pytest.fixture
def folder(tmp_path):
    """Where the action writes, as runner.temp has it."""
    (tmp_path / "mnist-bench").mkdir()
    return tmp_path / "mnist-bench"


@pytest.fixture
def act(folder, bench_environ):
    """Runs a step of the action as a runner would, in a repository with a matrix: ``act(name, program, script)``.

    Gives its exit code, and the lines that the program, a stand-in, says on file descriptor 9.
    """
    temp = folder.parent
    repo, outputs, calls = Repo(temp / "repo"), temp / "outputs", temp / "calls"
    repo.commit()
    repo.put("benchmarks.yaml", MATRIX)
    repo.commit()
    outputs.touch()
    known = {name: each["default"] for name, each in ACTION["inputs"].items()}
    known |= {"repository": "o/r", "number": "7", "token": "t", "temp": str(temp)}

    def act(name, stands_in="true", script="", **inputs):
        program(temp, stands_in, script)
        known.update(inputs, **dict(line.split("=") for line in outputs.read_text().splitlines()))
        environ = clean_environ(**bench_environ("action"), GITHUB_OUTPUT=str(outputs), GITHUB_ACTION_PATH=str(ROOT))
        for key, text in STEPS[name].get("env", {}).items():
            environ[key] = re.sub(r"\$\{\{ \S*?([^ .]+) \}\}", lambda found: known[found[1]], text)
        environ |= {"PATH": f"{temp / 'bin'}:{environ['PATH']}", "GITHUB_BASE_REF": ""}
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", f"exec 9> {calls}\n{STEPS[name]['run']}"]
        done = subprocess.run(words, env=environ, cwd=repo.root, check=False)
        return done.returncode, calls.read_text().splitlines()

    return act


@pytest.mark.parametrize(("code", "called"), [(0, f"-m pip install {ROOT}"), (1, f"{ROOT}/scripts/install.py")])
def test_a_torch_that_is_there_is_kept(act, code, called):
    assert act("Install", "python3", f'case "$*" in *show*) exit {code} ;; esac\n{SAYS}') == (0, [f"python3 {called}"])


def test_flags_are_those_of_the_inputs_and_the_verdict_is_the_exit_code(act, folder):
    asked = {"matrix": "my matrix.yaml", "against": "v1", "arguments": "--filter model=mlp\n--allow-plugins"}
    data, files = f"--data-dir {folder}/data", f"--junit {folder}/junit.xml --comment {folder}/comment.md"
    flags = "my matrix.yaml --against v1 --budget 20m --filter model=mlp --allow-plugins"
    called = [f"data fetch --dataset mnist {data}", f"check {flags} {data} -o {folder} {files}"]
    found = act("Check", "mnist-bench", f'{SAYS}\n[ "$1" != check ] || exit 3', **asked)
    assert found == (0, [f"mnist-bench {each}" for each in called])
    assert act("Verdict")[0] == 3


def test_a_wish_that_is_none_is_refused_before_anything_is_measured(act):
    assert act("Check", "mnist-bench", SAYS, comment="sometimes") == (2, [])


WRITES, REWRITES = ["repos/o/r/issues/7/comments"], ["--method PATCH repos/o/r/issues/comments/11"]


@pytest.mark.parametrize(
    ("when", "code", "there", "called"),
    [("changes", 0, "", []), ("changes", 3, "", WRITES), ("changes", 0, "11\n12", REWRITES), ("always", 0, "", WRITES)],
)
def test_it_comments_where_something_is_to_be_said_and_once(act, folder, when, code, there, called):
    (folder / "comment.md").write_text("verdicts\n")
    act("Check", "mnist-bench", f"[ $1 = data ] || exit {code}")
    found = act("Comment", "gh", f"case \"$*\" in *--jq*) printf '{there}' ;; *) {SAYS} ;; esac", comment=when)
    assert found == (0, [f"gh api {each} -F body=@{folder}/body.md --silent" for each in called])
    assert (folder / "body.md").read_text() == "<!-- mnist-bench gate -->\nverdicts\n"


def test_the_program_takes_what_the_action_says(act, folder):
    """A reference without the matrix, in so short a budget, costs no process; nothing else may be amiss."""
    fetched = f'[ "$1" != data ] || exit 0\nexec "{sys.executable}" -m mnist_bench "$@"'
    flags = "--filter model=mlp --seeds 1 --offline"
    assert act("Check", "mnist-bench", fetched, against="HEAD~1", budget="1s", arguments=flags) == (0, [])
    assert act("Verdict")[0] == 4
    assert all("mlp" in (folder / name).read_text() for name in ("comment.md", "junit.xml"))
