"""What the sides require: where that differs it is refused, or each has an environment of its own."""

import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from unittest.mock import Mock

import pytest
from check_kit import MATRIX, clean_environ, package, parse, put, side

from mnist_bench.errors import BenchError, Interrupted, UsageError
from mnist_bench.gate import requirements
from mnist_bench.gate.sides import ask, refuse_the_others_code

QUIET = Mock(requested=False)  # nobody has pressed Ctrl-C
PROJECT = """\
[project]
version = "1"
dependencies = ["numpy", "torch>=2.9,<3"]
[project.optional-dependencies]
fast = ["numba"]
[dependency-groups]
dev = ["pytest", {include-group = "fast"}]
[tool.ruff]
line-length = 100
"""
LOCK = """\
[[package]]
name = "mine"
version = "1"
source = { editable = "." }
[[package]]
name = "torch"
version = "2.9"
source = { registry = "https://index" }
"""
TEXT = "torch==2.9 --hash=sha256:1\n-r more.txt\n"
# A file, its text in A and in B -> what each side alone requires; empty: nothing.
FILES = [
    ("pyproject.toml", PROJECT, PROJECT.replace("100", "120").replace('version = "1"', 'version = "2"'), ""),
    ("pyproject.toml", PROJECT, PROJECT.replace('"numpy", "torch>=2.9,<3"', '"Torch <3, >=2.9", "numpy"'), ""),
    (
        "pyproject.toml",
        PROJECT,
        PROJECT.replace("2.9", "2.10"),
        "A alone requires torch<3,>=2.9; B alone requires torch<3",
    ),
    ("pyproject.toml", PROJECT, PROJECT.replace("numba", "numba>1"), "B alone requires numba>1 [fast]"),
    (
        "pyproject.toml",
        PROJECT,
        PROJECT.replace("pytest", "tox"),
        "A alone requires pytest [dev]; B alone requires tox [dev]",
    ),
    ("pyproject.toml", PROJECT, PROJECT + "[", "A alone requires numba [fast], numpy"),
    ("pyproject.toml", "project = 3", "project = 3\n", "the sides require other packages"),
    ("uv.lock", LOCK, LOCK.replace('"1"', '"2"'), ""),
    ("poetry.lock", LOCK, LOCK.replace("2.9", "2.10"), "A alone requires torch==2.9; B alone requires torch==2.10"),
    ("constraints-ci.txt", "torch==2.9\n", "# why\n\ntorch == 2.9  # because\n", ""),
    ("requirements.txt", TEXT, TEXT.replace(" --hash", " \\\n   --hash"), ""),
    ("requirements.txt", TEXT, TEXT.replace(":1", ":2"), "A alone requires torch==2.9 --hash=sha256:1; B alone"),
    (
        "requirements.txt",
        TEXT,
        TEXT.replace("more", "less"),
        "A alone requires -r more.txt; B alone requires -r less.txt",
    ),
]


@pytest.mark.parametrize(("name", "before", "after", "words"), FILES)
def test_only_what_is_required_counts(name, before, after, words):
    a, b = ({PurePosixPath("sub", name): text} for text in (before, after))
    found = requirements.differences(a, b)
    assert (words in found, found.startswith(f"sub/{name}: ")) == (True, bool(words))
    assert requirements.differences(a, a) == ""
    assert "B alone" not in requirements.differences(a, {})


def wheel(folder: Path, version: str) -> Path:
    """A package ``thing`` of one module, as pip installs it without a network."""
    path, info = folder / f"thing-{version}-py3-none-any.whl", f"thing-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("thing.py", f"VERSION = {version!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: thing\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path


def test_each_side_has_what_it_requires_and_its_workers_import_that(tmp_path):
    """Even where the environment lies in the other's tree. By venv and pip: there is no uv on this path."""
    environ = clean_environ(
        PATH=str(tmp_path), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path), PIP_CONFIG_FILE=os.devnull
    )
    made = {}
    for name, version in (("A", "1.0"), ("B", "2.0")):
        root = package(tmp_path / name)
        wheel(tmp_path, version)
        put(root, "mine/net.py", "import thing")
        put(root, "pyproject.toml", '[project]\ndependencies = ["thing>=1"]\n')
        put(root, "bench/constraints.txt", f"thing=={version}\n")
        place = tmp_path / "B" / "environments" / name
        requirements.build("B (the tree)", [root, root / "bench"], place, environ, QUIET)
        matrix = parse(MATRIX.replace("mlp, lenet5", '"mine.net:build"'))
        made[name] = replace(side(name, matrix, root, PYTHONPATH=str(root)), own=place)
    assert list(requirements.installed(*(one.own for one in made.values()))) == ["thing 1.0 in A, 2.0 in B"]
    found = ask(made["A"], QUIET)
    assert found.places["thing"].startswith(str(made["A"].own))
    refuse_the_others_code(made["A"], made["B"], found)
    put(tmp_path / "A", "requirements.txt", "no-such-thing")
    with pytest.raises(
        BenchError,
        match=r"^B \(the tree\): its packages cannot be installed, .* exited with 1:\n(.*\n)*.*no-such-thing",
    ):
        requirements.build("B (the tree)", [tmp_path / "A"], tmp_path / "third", environ, QUIET)
    put(tmp_path / "A", "pyproject.toml", "[")
    with pytest.raises(UsageError, match=r"A/pyproject\.toml: "):
        requirements.build("B (the tree)", [tmp_path / "A"], tmp_path / "fourth", environ, QUIET)
    with pytest.raises(Interrupted):
        requirements.build("B (the tree)", [tmp_path / "B"], tmp_path / "fifth", environ, Mock(requested=True))


def test_by_uv_where_it_is_present(tmp_path):
    """A stand-in says how it was called."""
    said = tmp_path / "said"
    put(tmp_path, "bin/uv", f'#!/bin/sh\necho "$*" into "$UV_PROJECT_ENVIRONMENT" >> {said}\n').chmod(0o755)
    root, place = tmp_path / "tree", tmp_path / "own"
    put(root, "requirements.txt", "thing")
    environ = {"PATH": f"{tmp_path / 'bin'}:/bin"}
    requirements.build("B (the tree)", [root], place, environ, QUIET)
    put(root, "uv.lock")
    requirements.build("B (the tree)", [root], place, environ, QUIET)
    venv = f"venv --python {sys.executable} {place}"
    pip = f"pip install --python {place}/bin/python -r {root}/requirements.txt"
    calls = [venv, pip, venv, "sync --frozen --no-install-project"]
    assert said.read_text().splitlines() == [f"{call} into {place}" for call in calls]
