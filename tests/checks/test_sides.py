"""Each side has its own tree, matrix and path; and is proven to import its own code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path, PurePosixPath

import pytest
from check_kit import MATRIX, cell

from mnist_bench import config
from mnist_bench.checks import imports, sides
from mnist_bench.checks.imports import Imports
from mnist_bench.checks.sides import Side, environment_of, load_matrix, plugin_modules, side_of, spec_of
from mnist_bench.errors import BenchError, ConfigError, Interrupted, UsageError
from mnist_bench.interrupts import Interrupts
from mnist_bench.protocol import PROTOCOL_VERSION
from mnist_bench.records import DataSet, ModelEntry

DATA = DataSet(name="mnist", root="/nowhere", sha256="0" * 64)


def path_of(environ: dict[str, str]) -> list[str]:
    return environ["PYTHONPATH"].split(os.pathsep)


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """The working tree and that of the reference, both with a package."""
    for name in ("my repo", "the tree"):
        (tmp_path / name / "mnist_bench").mkdir(parents=True)
        (tmp_path / name / "mnist_bench" / "__init__.py").write_text("")
    return tmp_path / "my repo", tmp_path / "the tree"


def environ_of(trees: tuple[Path, Path], python_path: str = "", search: tuple[str, ...] = ()) -> list[str]:
    repo, tree = trees
    environ = {"PYTHONPATH": python_path} if python_path else {}
    return path_of(environment_of(environ, root=tree, repository=repo, here=repo / "bench", search=search))


def test_the_root_comes_first(trees: tuple[Path, Path]) -> None:
    """Then the current folder's counterpart: in a run, workers start in that folder."""
    assert environ_of(trees) == [str(trees[1]), str(trees[1] / "bench")]


def test_entries_inside_the_repository_are_moved_and_others_stay(trees: tuple[Path, Path]) -> None:
    repo, tree = trees
    (repo / "src").mkdir()
    named = os.pathsep.join([str(repo / "src"), "/elsewhere", str(repo), "/elsewhere"])
    assert environ_of(trees, named) == [str(tree), str(tree / "bench"), str(tree / "src"), "/elsewhere"]


def test_relative_entries_are_meant_from_where_the_user_stands(trees: tuple[Path, Path]) -> None:
    _, tree = trees
    assert environ_of(trees, os.pathsep.join(["../src", "."])) == [str(tree), str(tree / "bench"), str(tree / "src")]


def test_a_link_into_the_repository_is_moved_too(trees: tuple[Path, Path], tmp_path: Path) -> None:
    repo, tree = trees
    (repo / "src").mkdir()
    (tmp_path / "link").symlink_to(repo / "src")
    expected = [str(tree), str(tree / "bench"), str(tree / "src")]
    assert environ_of(trees, str(tmp_path / "link")) == expected
    assert environ_of(trees, search=(str(tmp_path / "link"),)) == expected


def test_an_editable_install_is_moved(trees: tuple[Path, Path]) -> None:
    repo, tree = trees
    assert environ_of(trees, search=("", str(repo / "src"), "/lib", str(repo / "bench"))) == [
        str(tree),
        str(tree / "bench"),
        str(tree / "src"),
    ]


def test_a_virtual_environment_in_the_repository_stays(
    trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, tree = trees
    monkeypatch.setattr(sys, "prefix", str(repo / ".venv"))
    packages = str(repo / ".venv" / "lib" / "site-packages")
    assert environ_of(trees, packages, search=(packages,)) == [str(tree), str(tree / "bench"), packages]


def test_a_tree_without_the_package_gets_ours_even_if_it_is_not_installed(tmp_path: Path) -> None:
    found = environment_of({}, root=tmp_path / "tree", repository=tmp_path / "repo", here=tmp_path, search=())
    place = str(Path(sides.__file__).resolve().parents[2])
    assert path_of(found) == [str(tmp_path / "tree"), place]


def test_an_installed_package_is_not_put_before_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(Path(sides.__file__).resolve().parents[2])
    monkeypatch.setattr(sides.site, "getsitepackages", lambda: [place])
    found = environment_of({}, root=tmp_path / "tree", repository=tmp_path / "repo", here=tmp_path, search=())
    assert path_of(found) == [str(tmp_path / "tree")]


# ── matrices and trials ──────────────────────────────────────────────────────────────────────────────────────────────


def test_errors_of_a_matrix_call_it_what_the_user_does(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("version: 1\nmodel: [mlp]\n")
    with pytest.raises(ConfigError) as raised:
        load_matrix(tmp_path, PurePosixPath("m.yaml"), "main:m.yaml", allow_plugins=False)
    assert all(problem.startswith("main:m.yaml:") for problem in raised.value.problems)


def side(root: Path, name: str = "A", text: str = MATRIX, environ: dict[str, str] | None = None) -> Side:
    return Side(
        name="A" if name == "A" else "B",
        label=f"{name} (main)",
        root=root,
        matrix_path=root / "m.yaml",
        matrix=config.parse(text, source="m.yaml", allow_plugins=True),
        environ={**os.environ, "PYTHONPATH": str(root), **(environ or {})},
        data=DATA,
    )


def test_trials_of_the_sides_differ_by_name_alone(tmp_path: Path) -> None:
    a, b = (spec_of(side(tmp_path, name), cell(), 3, allow_plugins=False) for name in "AB")
    assert (a.id, b.id) == ("mlp/cpu/b100/eager@A/s3", "mlp/cpu/b100/eager@B/s3")
    assert (side_of(a), side_of(b)) == ("A", "B")
    assert replace(a, cell=b.cell) == b
    assert a.variant.threads
    assert not a.variant.deterministic
    assert spec_of(side(tmp_path), cell(), 3, allow_plugins=False, deterministic=True).variant.deterministic


def test_modules_of_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    text = MATRIX.replace("[mlp, lenet5]", '["a.b:c", "a.b:d", mlp]')
    matrix = config.parse(text, source="m", allow_plugins=True)
    assert plugin_modules(matrix) == ("a.b",)
    assert plugin_modules(None) == ()
    installed = EntryPoint(name="theirs", value="their.package:build", group="mnist_bench.models")
    monkeypatch.setattr(sides, "entry_points", lambda group: [installed])
    named = tuple(ModelEntry(name=name, model=name) for name in ("theirs", "nobody-has-installed-it"))
    assert plugin_modules(replace(matrix, models=(*matrix.models, *named))) == ("a.b", "their.package")


# ── what is imported ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    with Interrupts() as made:
        yield made


def package(root: Path, protocol: str = f"PROTOCOL_VERSION = {PROTOCOL_VERSION}", worker: str = "") -> Path:
    for name, text in {"__init__": "", "protocol": protocol, "worker": worker}.items():
        path = root / "mnist_bench" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_each_side_tells_its_own_protocol_and_place(tmp_path: Path, interrupts: Interrupts) -> None:
    a, b = package(tmp_path / "a tree", "PROTOCOL_VERSION = 1"), package(tmp_path / "b", "PROTOCOL_VERSION = 7")
    found = [imports.ask(side(root), interrupts) for root in (a, b)]
    assert [each.protocol for each in found] == [1, 7]
    assert [each.places["mnist_bench"] for each in found] == [str(r / "mnist_bench/__init__.py") for r in (a, b)]


def test_the_tree_comes_first_even_where_python_is_told_to_be_safe(tmp_path: Path, interrupts: Interrupts) -> None:
    root = package(tmp_path, "PROTOCOL_VERSION = 1")
    assert imports.ask(side(root, environ={"PYTHONSAFEPATH": "1"}), interrupts).protocol == 1


def test_what_a_package_prints_does_not_disturb(tmp_path: Path, interrupts: Interrupts) -> None:
    root = package(tmp_path, worker="import atexit\nprint('hello', end='')\natexit.register(print, 'bye')")
    assert imports.ask(side(root), interrupts).protocol == PROTOCOL_VERSION


def test_an_older_package_that_names_no_protocol(tmp_path: Path, interrupts: Interrupts) -> None:
    assert imports.ask(side(package(tmp_path, protocol="")), interrupts).protocol is None


FAILURES = {
    "import no_such_module": "ModuleNotFoundError: No module named 'no_such_module'",
    "def f(:": "SyntaxError",
    "raise SystemExit(3)": "exited with 3",
    "import os; os._exit(0)": "exited with 0",
    "raise ValueError('\\x1b[2J')": "ValueError: [2J",
}


@pytest.mark.parametrize("worker", FAILURES)
def test_a_package_that_does_not_import(worker: str, tmp_path: Path, interrupts: Interrupts) -> None:
    with pytest.raises(BenchError) as raised:
        imports.ask(side(package(tmp_path, worker=worker)), interrupts)
    text = str(raised.value)
    assert text.startswith("A (main) does not import, so nothing was measured:\n")
    assert FAILURES[worker] in text
    assert "\x1b" not in text
    assert raised.value.exit_code == 1


def test_an_import_without_end(tmp_path: Path, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "SECONDS", 0.5)
    with pytest.raises(BenchError, match=r"did not import within 0\.5 s"):
        imports.ask(side(package(tmp_path, worker="import time; time.sleep(1000)")), interrupts)


def test_an_interrupt_is_no_failure_of_the_package(tmp_path: Path, interrupts: Interrupts) -> None:
    interrupts.requested = True
    with pytest.raises(Interrupted):
        imports.ask(side(package(tmp_path, worker="raise KeyboardInterrupt")), interrupts)


PLUGIN = MATRIX.replace("mlp, lenet5", '"mine.net:build"')


def test_a_module_of_the_other_side_is_refused(tmp_path: Path, interrupts: Interrupts) -> None:
    """As an editable install has it: the source folder of the working tree is on everybody's path."""
    a, b = package(tmp_path / "a"), package(tmp_path / "b")
    (b / "src" / "mine").mkdir(parents=True)
    (b / "src" / "mine" / "net.py").write_text("")
    both = {"PYTHONPATH": os.pathsep.join([str(a), str(b / "src")])}
    before, after = side(a, "A", PLUGIN, both), side(b, "B", PLUGIN)
    found = imports.ask(before, interrupts)
    assert found.places["mine.net"] == str(b / "src" / "mine" / "net.py")
    with pytest.raises(UsageError, match=r"A \(main\) would import mine\.net from the other side"):
        imports.refuse_the_others_code(before, after, found)


def test_what_a_plugin_imports_from_the_other_side_is_refused_too(tmp_path: Path, interrupts: Interrupts) -> None:
    """The plug-in is the tree's own; a package that it imports comes by an editable install from the working tree."""
    a, b = package(tmp_path / "a"), package(tmp_path / "b")
    for root in (a, b):
        (root / "mine").mkdir()
        (root / "mine" / "net.py").write_text("import parts_of_it\nimport the_others.deep")
        (root / "src" / "the_others").mkdir(parents=True)  # a namespace package
        (root / "src" / "the_others" / "deep.py").write_text("")
    (b / "src" / "parts_of_it.py").write_text("")
    leads_to_b = {"PYTHONPATH": os.pathsep.join([str(a), str(b / "src")])}
    before, after = side(a, "A", PLUGIN, leads_to_b), side(b, "B", PLUGIN, {"PYTHONPATH": f"{b}{os.pathsep}{b}/src"})
    found = imports.ask(before, interrupts)
    assert found.places["mine.net"] == str(a / "mine" / "net.py")
    assert found.places["the_others"] == str(b / "src" / "the_others")
    with pytest.raises(UsageError, match=r"A \(main\) would import (parts_of_it|the_others) from the other side"):
        imports.refuse_the_others_code(before, after, found)
    imports.refuse_the_others_code(after, before, imports.ask(after, interrupts))


def test_a_plugin_that_starts_a_thread_does_not_hold_it_up(tmp_path: Path, interrupts: Interrupts) -> None:
    root = package(tmp_path)
    (root / "mine").mkdir()
    endless = "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()"
    (root / "mine" / "net.py").write_text(endless)
    assert imports.ask(side(root, "A", PLUGIN), interrupts).places["mine"] == str(root / "mine")


def test_a_plugin_that_ends_the_process_is_its_cells_failure(tmp_path: Path, interrupts: Interrupts) -> None:
    root = package(tmp_path)
    (root / "mine").mkdir()
    (root / "mine" / "net.py").write_text("import os; os._exit(7)")
    assert imports.ask(side(root, "A", PLUGIN), interrupts).places["mine.net"] == str(root / "mine" / "net.py")


def test_a_program_installed_in_the_repositorys_own_environment_is_nobodys_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, tree = tmp_path / "repo", tmp_path / "tree"
    monkeypatch.setattr(sys, "prefix", str(repo / ".venv"))
    place = repo / ".venv" / "lib" / "site-packages" / "mnist_bench" / "__init__.py"
    found = Imports(protocol=2, places={"mnist_bench": str(place)})
    imports.refuse_the_others_code(side(tree), side(repo, "B"), found)
    imports.refuse_the_others_code(side(repo, "B"), side(tree), found)


def test_a_reference_whose_tree_lies_in_the_repository_is_its_own(tmp_path: Path) -> None:
    """The cache folder may lie there: a CI keeps only what does."""
    repo = package(tmp_path / "repo")
    tree = package(repo / ".cache" / "mnist_bench" / "worktrees" / "x" / "repo")
    own, others = (
        Imports(protocol=2, places={"mnist_bench": str(root / "mnist_bench" / "__init__.py")}) for root in (tree, repo)
    )
    imports.refuse_the_others_code(side(tree), side(repo, "B"), own)
    imports.refuse_the_others_code(side(repo, "B"), side(tree), others)
    with pytest.raises(UsageError, match="from the other side"):
        imports.refuse_the_others_code(side(tree), side(repo, "B"), others)
    with pytest.raises(UsageError, match="from the other side"):
        imports.refuse_the_others_code(side(repo, "B"), side(tree), own)


def test_a_plugin_that_does_not_import_is_its_cells_failure(tmp_path: Path, interrupts: Interrupts) -> None:
    root = package(tmp_path)
    (root / "mine").mkdir()
    (root / "mine" / "__init__.py").write_text("raise ValueError")
    found = imports.ask(side(root, "A", PLUGIN), interrupts)
    assert {"mine", "mine.net"}.isdisjoint(found.places)
    imports.refuse_the_others_code(side(root), side(tmp_path / "b", "B"), found)


def test_a_package_from_elsewhere_is_refused(tmp_path: Path) -> None:
    one, other = side(package(tmp_path / "a")), side(tmp_path / "b", "B")
    found = Imports(protocol=2, places={"mnist_bench": "/usr/lib/mnist_bench/__init__.py"})
    with pytest.raises(BenchError, match=r"has a mnist_bench/ of its own, but would import /usr/lib"):
        imports.refuse_the_others_code(one, other, found)
    imports.refuse_the_others_code(other, one, found)  # it has none: the installed one it is


def test_protocols() -> None:
    def speaks(number: int | None) -> Imports:
        return Imports(protocol=number, places={})

    own = speaks(PROTOCOL_VERSION)
    assert imports.protocol_difference(own, own) is None
    words = imports.protocol_difference(speaks(1), own)
    assert words == f"protocol version: 1 in A, {PROTOCOL_VERSION} in B: their workers cannot be paired"
    assert "unknown in A" in str(imports.protocol_difference(speaks(None), own))
    with pytest.raises(UsageError, match="worker speaks protocol 99, the program that was started"):
        imports.protocol_difference(own, speaks(99))
