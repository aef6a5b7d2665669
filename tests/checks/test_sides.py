"""Each side's workers start in their own tree, with caches of their own; and are proven to import its code."""

import os
import py_compile
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest.mock import Mock

import pytest
from check_kit import MATRIX, package, parse, put
from check_kit import side as made

from mnist_bench.errors import BenchError, Interrupted, UsageError
from mnist_bench.gate import sides
from mnist_bench.gate.sides import Imports, Side, ask, environment_of, refuse_the_others_code
from mnist_bench.running import process
from mnist_bench.running.protocol import PROTOCOL_VERSION

PLUGIN = MATRIX.replace("mlp, lenet5", '"mine.net:build"')
QUIET = Mock(requested=False)  # nobody has pressed Ctrl-C


@pytest.fixture
def repo(tmp_path):
    """The working tree; ``the tree`` beside it is the reference's."""
    for name in ("my repo", "the tree"):
        package(tmp_path / name)
    (tmp_path / "my repo" / "src").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "my repo" / "src")
    return tmp_path / "my repo"


def path_of(repo: Path, python_path: str = "", search: tuple[str, ...] = (), tree: str = "the tree") -> list[str]:
    """``PYTHONPATH`` of the reference's workers, from its root (entries elsewhere as they are)."""
    root = repo.parent / tree
    environ = {"PYTHONPATH": python_path.replace("REPO", str(repo))} if python_path else {}
    places = {"root": root, "repository": repo, "here": repo / "bench", "caches": repo / "caches"}
    moved = environment_of(environ, search=[entry.replace("REPO", str(repo)) for entry in search], **places)
    found = moved["PYTHONPATH"].split(os.pathsep)
    return [entry.removeprefix(f"{root}/") if entry != str(root) else "." for entry in found]


# What ``PYTHONPATH`` and the parent's own path name -> what comes after the root and the current folder's counterpart.
ENTRIES = [
    ("", (), []),
    ("REPO/src:/elsewhere:REPO:/elsewhere", (), ["src", "/elsewhere"]),
    ("../src:.", (), ["src"]),  # relative ones are meant from where the user stands
    ("REPO/../link", (), ["src"]),
    ("", ("REPO/../link",), ["src"]),
    ("", ("", "REPO/src", "/lib", "REPO/bench"), ["src"]),  # an editable install
    ("REPO/.venv/lib", ("REPO/.venv/lib",), ["REPO/.venv/lib"]),  # the Python that runs us
]


@pytest.mark.parametrize(("named", "search", "expected"), ENTRIES)
def test_entries_inside_the_repository_are_moved_and_others_stay(named, search, expected, repo, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(repo / ".venv"))
    assert path_of(repo, named, search) == [".", "bench", *(entry.replace("REPO", str(repo)) for entry in expected)]


def test_a_tree_without_the_package_gets_ours_even_if_it_is_not_installed(repo, monkeypatch):
    """And one that is installed is not put before the standard library."""
    place = str(Path(sides.__file__).resolve().parents[2])
    assert path_of(repo, tree="empty") == [".", "bench", place]
    monkeypatch.setattr(process.site, "getsitepackages", lambda: [place])
    assert path_of(repo, tree="empty") == [".", "bench"]


# ── what they import ─────────────────────────────────────────────────────────────────────────────────────────────────


def side(root: Path, name: str = "A", text: str = MATRIX, **environ: str) -> Side:
    own = environment_of(
        {**os.environ, "PYTHONPATH": ""}, root=root, repository=root, here=root, search=(), caches=root / "caches"
    )
    return replace(made(name, parse(text), root, **{**own, **environ}), label=f"{name} (main)")


def test_a_tree_s_own_package_and_plug_ins_are_found(tmp_path, monkeypatch):
    """The plug-in's own modules too, whatever it prints, starts, or breaks."""
    root = package(tmp_path, worker="import atexit\nprint('hello', end='')\natexit.register(print, 'bye')")
    put(root, "mine/net.py", "import mine.part, threading as t, time\nt.Thread(target=time.sleep, args=[99]).start()")
    put(root, "mine/part.py")
    found = ask(side(root, text=PLUGIN), QUIET)
    assert found.protocol == PROTOCOL_VERSION
    assert ask(side(package(tmp_path / "older", run_protocol="")), QUIET).protocol == "unknown"
    for name, file in (("mnist_bench", "mnist_bench/__init__"), ("mine.net", "mine/net"), ("mine.part", "mine/part")):
        assert found.places[name] == f"{root}/{file}.py"
    for broken in ("import os; os._exit(7)", "raise ValueError"):  # its cell's failure
        put(root, "mine/__init__.py", broken)
        assert {"mine", "mine.net"}.isdisjoint(ask(side(root, text=PLUGIN), QUIET).places)
    point = EntryPoint(name="by-name", value="mine.part:build", group="mnist_bench.models")
    monkeypatch.setattr(sides, "entry_points", lambda group: [point])
    (root / "mine" / "__init__.py").unlink()
    by_name = parse(PLUGIN)
    by_name = replace(by_name, models=(replace(by_name.models[0], model="by-name"),))
    assert "mine.part" in ask(replace(side(root), matrix=by_name), QUIET).places


def test_stale_bytecode_is_not_taken_for_an_edited_file(tmp_path):
    """An edit of the same size in the same second, beside bytecode of the code before."""
    root = package(tmp_path)
    net = put(root, "mine/net.py", "import json\n")
    os.utime(net, (1e9, 1e9))
    py_compile.compile(str(net))
    net.write_text("import wave\n")
    os.utime(net, (1e9, 1e9))
    found = ask(side(root, text=PLUGIN), QUIET)
    assert "wave" in found.places
    assert (root / "caches" / "bytecode").is_dir()
    assert not list((root / "mnist_bench").glob("__pycache__"))


FAILURES = {
    "import no_such_module": "ModuleNotFoundError: No module named 'no_such_module'",
    "import os; os._exit(0)": "exited with 0",
    "raise ValueError('\\x1b[2J')": "ValueError: [2J",
}


@pytest.mark.parametrize("worker", FAILURES)
def test_a_package_that_does_not_import(worker, tmp_path):
    with pytest.raises(BenchError) as raised:
        ask(side(package(tmp_path, worker=worker)), QUIET)
    text = str(raised.value)
    assert text.startswith("A (main) does not import, so nothing was measured:\n")
    assert FAILURES[worker] in text
    assert "\x1b" not in text
    assert raised.value.exit_code == 1


def test_an_import_without_end_or_interrupted(tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        ask(side(package(tmp_path, worker="raise KeyboardInterrupt")), Mock(requested=True))
    monkeypatch.setattr(sides, "SECONDS", 0.5)
    with pytest.raises(BenchError, match=r"did not import within 0\.5 s"):
        ask(side(package(tmp_path, worker="import time; time.sleep(1000)")), QUIET)


def test_what_a_plugin_imports_from_the_other_side_is_refused(tmp_path):
    """As an editable install has it: the plug-in is the tree's own, packages that it imports come from the other's."""
    a, b = package(tmp_path / "a"), package(tmp_path / "b")
    for root in (a, b):
        put(root, "mine/net.py", "import parts_of_it\nimport the_others.deep")
        put(root, "src/the_others/deep.py")  # a namespace package
    put(b, "src/parts_of_it.py")
    before = side(a, "A", PLUGIN, PYTHONPATH=f"{a}:{b}/src")
    after = side(b, "B", PLUGIN, PYTHONPATH=f"{b}:{b}/src")
    found = ask(before, QUIET)
    assert (found.places["mine.net"], found.places["the_others"]) == (f"{a}/mine/net.py", f"{b}/src/the_others")
    with pytest.raises(UsageError, match=r"A \(main\) would import (parts_of_it|the_others) from the other side"):
        refuse_the_others_code(before, after, found)
    refuse_the_others_code(after, before, ask(after, QUIET))


def test_where_the_package_may_come_from(tmp_path, monkeypatch):
    """From the own tree, though it lie in the other's (a cache folder there); from the Python that runs us, though that
    lie in a tree; from elsewhere only where the tree has none."""

    def imports(one: Side, other: Side, place: Path) -> None:
        places = {"mnist_bench": str(place / "mnist_bench" / "__init__.py")}
        refuse_the_others_code(one, other, Imports(PROTOCOL_VERSION, places))

    repo, bare, elsewhere = package(tmp_path / "repo"), side(tmp_path / "bare"), Path("/usr/lib")
    a, b = side(package(repo / ".cache" / "x" / "repo")), side(repo, "B")
    for one, other, place in ((a, b, a.root), (b, a, repo), (bare, b, elsewhere)):
        imports(one, other, place)
    for one, other, place in ((a, b, repo), (b, a, a.root)):
        with pytest.raises(UsageError, match="from the other side"):
            imports(one, other, place)
    with pytest.raises(BenchError, match=r"has a mnist_bench/ of its own, but would import /usr/lib"):
        imports(b, a, elsewhere)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "bare" / ".venv"))
    imports(side(tmp_path / "tree"), bare, tmp_path / "bare" / ".venv" / "lib")
