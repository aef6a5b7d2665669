"""What the sides require: where that differs it is refused, or each has an environment of its own."""

import os
import sys
import zipfile
from dataclasses import replace
from pathlib import PurePosixPath
from unittest.mock import Mock

import pytest
from check_kit import MATRIX, clean_environ, package, parse, program, put, side

from mnist_bench.errors import BenchError, Interrupted, UsageError
from mnist_bench.gate import requirements
from mnist_bench.gate.sides import ask, refuse_the_others_code

QUIET = Mock(requested=False)  # nobody has pressed Ctrl-C
PROJECT = """\
project.version = "1"
project.dependencies = ["numpy", "torch>=2.9,<3"]
project.optional-dependencies.fast = ["numba"]
dependency-groups.dev = ["pytest", {include-group = "fast"}]
"""
LOCK = """\
package = [
    {name = "mine", version = "1", source = {editable = "."}},
    {name = "torch", version = "2.9", source = {registry = "https://index"}},
]
"""
TEXT = "torch==2.9 --hash=sha256:1\n-r more.txt\n"
# A file, its text in A, what is another in B -> what each side alone requires; empty: nothing.
FILES = [
    ("pyproject.toml", PROJECT, 'version = "1"', 'version = "2"', "", ""),
    ("pyproject.toml", PROJECT, '"numpy", "torch>=2.9,<3"', '"Torch <3, >=2.9", "numpy"', "", ""),
    ("pyproject.toml", PROJECT, "2.9", "2.10", "torch<3,>=2.9", "torch<3,>=2.10"),
    ("pyproject.toml", PROJECT, "numba", "numba>1", "numba [fast]", "numba>1 [fast]"),
    ("pyproject.toml", PROJECT, "pytest", "tox", "pytest [dev]", "tox [dev]"),
    ("pyproject.toml", "project = 3\n", "3", "4", "project = 3", "project = 4"),
    ("uv.lock", LOCK, '"1"', '"2"', "", ""),
    ("poetry.lock", LOCK, "2.9", "2.10", "torch==2.9", "torch==2.10"),
    ("constraints-ci.txt", "torch==2.9\n", "torch==2.9", "# why\n\ntorch == 2.9  # because", "", ""),
    ("requirements.txt", TEXT, " --hash", " \\\n   --hash", "", ""),
    ("requirements.txt", TEXT, ":1", ":2", "torch==2.9 --hash=sha256:1", "torch==2.9 --hash=sha256:2"),
    ("requirements.txt", TEXT, "-r more.txt", "", "-r more.txt", ""),
]


@pytest.mark.parametrize(("name", "text", "old", "new", "before", "after"), FILES)
def test_only_what_is_required_counts(name, text, old, new, before, after):
    path = PurePosixPath("sub", name)
    only = [f"{side} alone requires {one} (sub/{name})" for side, one in (("A", before), ("B", after)) if one]
    found = requirements.differences({path: text}, {path: text.replace(old, new)})
    assert found == (f"the sides require other packages: {'; '.join(only)}" if only else "")


def wheel(folder, version):
    """A package ``thing`` of one module, as pip installs it without a network."""
    info = f"thing-{version}.dist-info"
    with zipfile.ZipFile(folder / f"thing-{version}-py3-none-any.whl", "w") as file:
        file.writestr("thing.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: thing\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def test_each_side_has_what_it_requires_and_its_workers_import_that(tmp_path):
    """Even where the environment lies in the other's tree. By venv and pip: there is no uv on this path."""
    found = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    environ, folders, made = clean_environ(PATH=str(tmp_path), **found), (PurePosixPath(), PurePosixPath("bench")), []
    for name, version in (("A", "1.0"), ("B", "2.0")):
        root = package(tmp_path / name)
        wheel(tmp_path, version)
        put(root, "mine/net.py", "import thing")
        put(root, "pyproject.toml", '[project]\ndependencies = ["thing>=1"]\n')
        put(root, "bench/constraints.txt", f"thing=={version}\n")
        own = side(name, parse(MATRIX.replace("mlp, lenet5", '"mine.net:build"')), root, PYTHONPATH=str(root))
        place = tmp_path / "B" / "environments" / name
        made.append(requirements.with_own(own, folders, place, environ, QUIET))
    a, b = made
    assert requirements.installed(a.own, b.own) == "A alone has thing==1.0; B alone has thing==2.0"
    imports = ask(a, QUIET)
    assert imports.places["thing"].startswith(str(a.own))
    refuse_the_others_code(a, b, imports)


def test_by_uv_where_it_is_present(tmp_path):
    """A stand-in says how it was called."""
    said, root, place = tmp_path / "said", tmp_path / "tree", tmp_path / "own"
    script = (
        f'echo "$*" into "$UV_PROJECT_ENVIRONMENT" >> {said}\n[ ! -e broken ] || {{ echo no thing >&2; exit 3; }}\n'
    )
    program(tmp_path, "uv", script)
    made = replace(side("B", None, root), label="B (the tree)")

    def build(interrupts=QUIET):
        requirements.with_own(made, [PurePosixPath()], place, {"PATH": f"{tmp_path / 'bin'}:/bin"}, interrupts)

    put(root, "requirements.txt", "thing")
    build()
    put(root, "uv.lock")
    build()
    venv = f"venv --python {sys.executable} {place}"
    pip = f"pip install --python {place}/bin/python -r {root}/requirements.txt"
    calls = [venv, pip, venv, "sync --frozen --no-install-project"]
    assert said.read_text().splitlines() == [f"{call} into {place}" for call in calls]
    with pytest.raises(Interrupted):
        build(Mock(requested=True))
    put(root, "broken")
    with pytest.raises(BenchError, match=r"^B \(the tree\): its packages cannot be installed, by .*:\n  no thing$"):
        build()
    put(root, "pyproject.toml", "[")
    with pytest.raises(UsageError, match=r"tree/pyproject\.toml: "):
        build()
