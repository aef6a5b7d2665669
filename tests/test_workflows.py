"""The workflows of this project, those of docs/ci.md and action.yml: sound, safe, and of commands that exist."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_docs import blocks, understood

ROOT = Path(__file__).resolve().parent.parent
OWN = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
COPIED = sorted((ROOT / "docs" / "example" / ".github" / "workflows").glob("*.yml"))
WORKFLOWS = [*OWN, *COPIED]


def steps(path: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load(path.read_text("utf-8"))
    return [step for job in document["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> list[list[str]]:
    """The words of every command that a workflow runs; what a redirection names is left out."""
    lines = [line for step in steps(path) for line in step.get("run", "").splitlines()]
    return [shlex.split(line.partition(" >> ")[0]) for line in lines]


ALL_COMMANDS = [
    pytest.param(words, id=f"{path.name}: {' '.join(words)}") for path in WORKFLOWS for words in commands(path)
]


def linted(kind: str, *paths: Path) -> None:
    """Files are of GitHub's schema of that kind, and zizmor finds them safe."""
    schema = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.github-{kind}"]
    audit = [str(Path(sysconfig.get_path("scripts")) / "zizmor"), "--offline", "--no-progress", "--no-config"]
    for linter in (schema, audit):
        done = subprocess.run([*linter, *map(str, paths)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("kind", "paths"), [("workflows", WORKFLOWS), ("actions", [ROOT / "action.yml"])])
def test_they_are_of_the_schema_and_safe(kind, paths):
    linted(kind, *paths)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: str(path.relative_to(ROOT)))
def test_rights_are_given_to_jobs_one_by_one(path):
    document = yaml.safe_load(path.read_text("utf-8"))
    assert document["permissions"] == {}
    for job in document["jobs"].values():
        writes = [right for right, level in job["permissions"].items() if level == "write"]
        assert not writes or not any("run" in step for step in job["steps"]), "who may write runs no code"
        assert job["timeout-minutes"] <= 60


def test_the_gate_has_the_history_that_it_compares_with():
    for path in (OWN[1], COPIED[1]):
        (checkout,) = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
        assert checkout["with"]["fetch-depth"] == 0
    (check,) = [step for step in steps(COPIED[1]) if "mnist-bench check" in step.get("run", "")]
    assert '--against "origin/$BASE"' in check["run"]
    assert check["env"] == {"BASE": "${{ github.base_ref }}"}


COMMENTING = """
const done = [], known = process.env.THERE ? [{id: 7, user: {type: 'Bot'}, body: '<!-- mnist-bench gate -->...'}] : [];
const issues = {updateComment: one => done.push(`update ${one.comment_id}`), createComment: one => done.push('create')};
const github = {paginate: async () => [{id: 1, user: {type: 'User'}, body: 'hi'}, ...known], rest: {issues}};
const context = {repo: {owner: 'o', repo: 'r'}, issue: {number: 3}};
(async () => { %s })().then(() => process.stdout.write(done.join()));
"""
COMMENTS = [
    ("changes", "success", "", ""),
    ("changes", "failure", "", "create"),
    ("changes", "success", "yes", "update 7"),
    ("always", "success", "", "create"),
    ("never", "failure", "yes", ""),
]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize(("when", "result", "there", "done"), COMMENTS)
def test_a_comment_is_written_where_something_is_to_be_said(when, result, there, done, tmp_path):
    """The workflow's own script, of a GitHub that is made up."""
    (tmp_path / "comment.md").write_text("the verdict")
    (step,) = [each for each in steps(COPIED[1]) if "github-script" in each.get("uses", "")]
    assert step["env"] == {"WHEN": "changes", "RESULT": "${{ needs.check.result }}"}
    environ = {**os.environ, "WHEN": when, "RESULT": result, "THERE": there}
    node = ["node", "-e", COMMENTING % step["with"]["script"]]
    assert subprocess.check_output(node, cwd=tmp_path, env=environ, text=True) == done


def test_a_red_night_is_in_the_history_too():
    """A job that failed saves nothing by itself."""
    kept = [step for step in steps(COPIED[2]) if step.get("with", {}).get("path") == "results"]
    assert [step["uses"].partition("@")[0] for step in kept] == ["actions/cache/restore", "actions/cache/save"]
    restore, save = kept
    assert save["if"] == "${{ !cancelled() }}"
    assert save["with"]["key"] == restore["with"]["key"]
    assert save["with"]["key"].startswith(restore["with"]["restore-keys"])


def test_docs_ci_shows_them_as_they_are_and_one_with_the_action(tmp_path):
    shown = [block.text for block in blocks((ROOT / "docs" / "ci.md").read_text("utf-8")) if block.language == "yaml"]
    assert {path.read_text("utf-8") for path in COPIED} < set(shown)
    (one,) = (text for text in shown if "mnist_bench@COMMIT" in text)
    assert len(shown) == len(COPIED) + 1
    path = tmp_path / "gate.yml"
    path.write_text(one.replace("COMMIT", 40 * "1"))
    linted("workflows", path)
    action = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    for step in [*steps(path), *steps(OWN[1])]:
        if step.get("uses", "").startswith(("./", "YOUR-NAME/mnist_bench@")):
            assert set(step["with"]) <= set(action["inputs"])


@pytest.mark.parametrize("words", ALL_COMMANDS)
def test_commands_of_workflows_exist(words):
    understood(words, "pip", "python3", ".venv/bin/pip")
