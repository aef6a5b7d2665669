"""A sitting of a check from a real repository to evidence on disk; the measurements are made up."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from check_kit import DATA, MATRIX, FakeBench, Repo, Told, by_model, clean_environ, kinds
from record_factory import make_manifest

from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import BenchError, ConfigError, DataError, Interrupted, UsageError
from mnist_bench.gate import plan
from mnist_bench.gate.evidence import Check
from mnist_bench.gate.plan import Plan, Request
from mnist_bench.gate.sides import Imports, Side
from mnist_bench.records import DataSet, Matrix, RunOptions
from mnist_bench.running.process import Interrupts
from mnist_bench.running.protocol import PROTOCOL_VERSION
from mnist_bench.running.runner import Options


class Stage:
    """A repository with a commit, and what stands in for workers."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.repo = Repo(tmp_path / "the project")
        self.repo.put("bench/m.yaml", MATRIX)
        self.repo.put("model.py", "WIDTH = 1\n")
        self.first = self.repo.commit()
        self.out, self.cache = tmp_path / "out", tmp_path / "cache"
        self.events: list[Any] = []
        self.bench = FakeBench()
        self.settings: list[SimpleNamespace] = []
        self.asked: list[Side] = []
        self.verified: list[DataSet] = []
        self.places: dict[str, str] = {}
        self.protocol: int | str = PROTOCOL_VERSION  # of A's worker
        self.own_protocol = PROTOCOL_VERSION
        monkeypatch.setattr(plan, "Bench", self._bench)
        monkeypatch.setattr(plan.sides, "ask", self._ask)
        monkeypatch.setattr(plan.data, "resolve", lambda *args: DATA)
        monkeypatch.setattr(plan.data, "verify", self.verified.append)
        monkeypatch.setattr(plan.time, "monotonic", self.bench.clock)

    def _bench(self, **fields: Any) -> FakeBench:
        self.settings.append(SimpleNamespace(**fields))
        self.bench.folder, self.bench.observer = fields["folder"], fields["observer"]
        return self.bench

    def _ask(self, side: Side, interrupts: Interrupts) -> Imports:
        self.asked.append(side)
        assert side.root.is_dir()
        place = {"mnist_bench": "/installed/mnist_bench/__init__.py"}
        return Imports(self.protocol, place) if side.name == "A" else Imports(self.own_protocol, place | self.places)

    def request(self, **changes: Any) -> Request:
        """``changes``: of the request, or of its options."""
        options = Options(
            run=RunOptions(filter=changes.pop("filter", None)),
            matrix_path=changes.pop("matrix", "bench/m.yaml"),
            output_dir=changes.pop("output_dir", self.out),
            data_root=changes.pop("data_root", Path(DATA.root)),
        )
        environ = clean_environ(XDG_CACHE_HOME=str(self.cache))
        usual = {"here": self.repo.root, "environ": environ, "against": "main", "override": lambda matrix: matrix}
        return Request(options=options, **{**usual, **changes})

    def run(self, **changes: Any) -> Check:
        return Plan(self.request(**changes)).execute(Told(self.events))[1]

    def resume(self, **changes: Any) -> Check:
        planned = Plan(self.request(**{"against": "", **changes}), self.folder)
        return planned.execute(Told(self.events))[1]

    @property
    def folder(self) -> RunFolder:
        return plan.find_check(self.out, "latest")

    def at(self, count: int, act: Callable[[], Any]) -> None:
        """At the so manieth pair of all; what ``act`` gives is what the pair found."""
        self.bench.slower = lambda cell, number: act() or 0.0 if self.bench.count("pair") == count else 0.0

    def interrupt_at(self, count: int) -> None:
        self.at(count, lambda: Interrupted("interrupted"))

    def go_on(self) -> None:
        self.interrupt_at(-1)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    made = Stage(tmp_path, monkeypatch)
    yield made
    trees = made.cache / "mnist_bench" / "worktrees"
    assert not trees.exists() or list(trees.iterdir()) == []
    assert made.repo.worktrees() == [str(made.repo.root)]


def limited(seconds: float) -> Callable[[Matrix], Matrix]:
    return lambda matrix: replace(matrix, limits=replace(matrix.limits, timeout_seconds=seconds))


def counts(check: Check) -> dict[str, tuple[int, int]]:
    return {one.cell.model: (len(one.pairs), len(one.seeds)) for one in check.cells}


def test_a_dirty_tree_against_its_last_commit(stage):
    stage.repo.put("model.py", "WIDTH = 2\n")
    stage.repo.put("more.py")
    seen: list[str] = []
    stage.at(3, lambda: seen.append((stage.settings[-1].a.root / "model.py").read_text()))
    check = stage.run()
    assert (counts(check), set(kinds(check).values())) == ({"mlp": (9, 1), "lenet5": (9, 1)}, {"pass"})
    assert seen == ["WIDTH = 1\n"]
    assert (check.a.label, check.b.label) == ("main", "working tree")
    assert check.a.commit == check.b.commit == stage.first
    assert sorted(check.b.changed) == ["model.py", "more.py"]
    assert (check.status, check.matrix_path, check.mode, check.spent_s) == ("complete", "bench/m.yaml", "against", 200)
    a, b = stage.settings[0].a, stage.settings[0].b
    assert (b.root, a.matrix_path) == (stage.repo.root, a.root / "bench" / "m.yaml")
    caches = {side.environ["PYTHONPYCACHEPREFIX"] for side in (a, b)}
    assert len(caches) == 2
    assert not any(map(os.path.exists, caches))  # they go with the tree
    outline = stage.events[0][1]
    assert "A is main" in outline
    assert outline.endswith("B differs from its commit in model.py, more.py")


def test_each_side_reads_its_own_matrix(stage):
    """But for the seeds and the limits, which are B's."""
    stage.repo.put("bench/m.yaml", MATRIX.replace("mlp, lenet5", "cnn, lenet5").replace("seeds: 2", "seeds: [5]"))
    check = stage.run(override=limited(77.0))
    cells = by_model(check)
    assert (cells["cnn"].a, cells["mlp"].b) == (None, None)
    assert counts(check) == {"cnn": (0, 0), "lenet5": (8, 1), "mlp": (0, 0)}
    assert cells["lenet5"].seeds[0].b.seed == 5
    assert stage.bench.count("cnn solo") == 1
    matrices = [side.matrix for side in (stage.settings[0].a, stage.settings[0].b)]
    found = [(one.models[0].name, one.seeds, one.limits.timeout_seconds) for one in matrices]
    assert found == [("mlp", (5,), 77.0), ("cnn", (5,), 77.0)]


TWICE = "a branch and a tag have this name; A is the tag, refs/heads/main the branch"


def test_what_a_user_must_know_of_the_trees(stage):
    """A branch and a tag of one name, a file that may require packages, a module that git ignores and A lacks."""
    for name in ("pyproject.toml", "setup.cfg", "bench/setup.py"):
        stage.repo.put(name, "[project]\n")
    stage.repo.put(".gitignore", "*.so\nbuild/\n")
    tagged = stage.repo.commit()
    stage.repo.git("tag", "main")
    stage.repo.commit()
    stage.repo.put("pyproject.toml", "[project]\nname = 'x'\n")
    stage.repo.put("setup.cfg", "[metadata]\n")
    (stage.repo.root / "bench" / "setup.py").unlink()
    stage.repo.put("bench/_fast.abi3.so")
    stage.places = {"deep.net": str(stage.repo.put("build/deep/net.py"))}
    check = stage.run()
    twice, unread, ignored = check.notes
    assert (check.a.commit, twice.partition(": ")) == (tagged, ("--against main", ": ", TWICE))
    assert unread == "setup.cfg, bench/setup.py: other in A than in B; if it requires packages, that is not looked at"
    assert ignored.startswith("bench/_fast.abi3.so, build/deep/net.py: git ignores it, so only B can import it")
    assert [text for kind, text in stage.events if kind == "warning"] == list(check.notes)


def test_sides_that_require_other_packages_are_refused_unless_it_is_said_what_they_run_with(stage, monkeypatch):
    """A file that git ignores is no part of the project; one that a commit alone has is. What was said holds for a
    check that goes on."""
    for name in ("bench/requirements.txt", "elsewhere/requirements.txt"):
        stage.repo.put(name, "torch==2.9\n")
    stage.repo.put(".gitignore", "requirements-mine.txt\n")
    stage.repo.commit()
    for name in ("requirements-mine.txt", "elsewhere/requirements.txt"):
        stage.repo.put(name, "scipy\n")
    assert stage.run(filter="model=mlp").notes == ()
    (stage.repo.root / "bench" / "requirements.txt").unlink()
    stage.repo.put("requirements.txt", "torch==2.10\n")
    with pytest.raises(UsageError) as refused:
        stage.run()
    assert str(refused.value).startswith(
        "the sides require other packages: A alone requires torch==2.9 (bench/requirements.txt); "
        "B alone requires torch==2.10 (requirements.txt): --environment per-side measures each"
    )
    (note,) = stage.run(environment="shared").notes
    assert note.endswith("both run with those that are installed here: the code alone is compared")
    monkeypatch.setattr(plan.requirements, "with_own", lambda side, folders, place, *_: replace(side, own=place))
    stage.interrupt_at(stage.bench.count("pair") + 4)
    stage.run(environment="per-side")
    stage.go_on()
    (note,) = stage.resume(budget_s=500.0).notes
    assert note.endswith("each has an environment of its own: the same versions in both")
    assert [[one.name, one.own.name] for one in stage.asked[-2:]] == [["A", "A"], ["B", "B"]]


def test_a_reference_without_the_matrix(stage):
    stage.repo.put("other.yaml", MATRIX)
    check = stage.run(matrix="other.yaml")
    assert {one.a for one in check.cells} == {None}
    assert check.notes == ("main has no other.yaml: every cell is new, and nothing can be compared",)
    assert stage.asked == []


def test_a_reference_of_another_protocol_is_not_comparable(stage):
    """B is trained all the same: it may fail, or miss a floor."""
    stage.protocol = "unknown"
    check = stage.run(filter="model=mlp")
    why = f"protocol version: unknown in A, {PROTOCOL_VERSION} in B: their workers cannot be paired"
    assert (check.cells[0].differences, kinds(check)) == ((why,), {"mlp": "not_comparable"})
    assert stage.bench.done == ["mlp solo 0"]
    stage.own_protocol = 99
    with pytest.raises(UsageError, match="worker speaks protocol 99, this program"):
        stage.run()


def test_bad_input_is_refused_before_anything_is_made(stage, monkeypatch):
    for change in ({"against": "nope"}, {"filter": "colour=red"}):
        with pytest.raises(UsageError):
            Plan(stage.request(**change))
    planned = Plan(stage.request())
    stage.repo.put("model.py", "WIDTH = 2\n")
    with pytest.raises(UsageError, match="changed while the check waited for its turn: start it again"):
        planned.execute(Told(stage.events))
    assert not stage.cache.exists()
    stage.repo.put("bench/m.yaml", "version: 1\nmodel: []\n")
    stage.repo.commit()
    stage.repo.put("bench/m.yaml", MATRIX)
    with pytest.raises(ConfigError, match=r"main:bench/m\.yaml:2:1: "):
        stage.run()

    def broken(side: Side, interrupts: Interrupts) -> Imports:
        raise BenchError(f"{side.label} does not import")

    monkeypatch.setattr(plan.sides, "ask", broken)
    with pytest.raises(BenchError, match=r"A \(main~1\) does not import"):
        stage.run(against="main~1")
    assert not stage.out.exists()


def test_a_tree_that_is_changed_meanwhile_is_noticed(stage):
    stage.at(3, lambda: stage.repo.put("model.py", "WIDTH = 9\n") and 0.0)
    with pytest.raises(BenchError, match="the working tree was changed while it was measured"):
        stage.run()
    assert (len(stage.folder.sessions()), stage.folder.manifest().status) == (2, "interrupted")


def test_what_the_program_writes_in_the_tree_is_no_change(stage, monkeypatch):
    """Results, images, cache, the files that are asked for and the Python that runs us may lie there, whether git is to
    ignore them or not; another folder that git does not know is part of what is checked."""
    root = stage.repo.root
    stage.out, stage.cache = root, root / "cache dir"
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    for name in (".venv/pyvenv.cfg", "more/part.py", "junit.xml"):
        stage.repo.put(name)

    def slower(cell: Any, number: int) -> float:
        for name in ("images/MNIST/raw/labels", "cache dir/mnist_bench/known.json", "junit.xml", "verdict.txt"):
            stage.repo.put(name, f"{number}")
        return 0.0

    stage.bench.slower = slower
    stdout = os.dup(1)
    os.dup2(os.open(stage.repo.put("verdict.txt"), os.O_WRONLY), 1)  # check > verdict.txt
    try:
        for _ in range(2):
            check = stage.run(output_dir=root, data_root=root / "images", outputs=(root / "junit.xml",))
            assert check.status == "complete"
            assert [name for name in check.b.changed if not name.startswith("checks/")] == ["more/part.py"]
    finally:
        os.dup2(stdout, 1)


# ── interrupted, killed, resumed ─────────────────────────────────────────────────────────────────────────────────────


def test_an_interrupted_check_keeps_its_pairs_and_goes_on(stage):
    """With its own cells and limits, within its own budget, over all sittings, wherever the user stands."""
    stage.repo.put("model.py", "WIDTH = 2\n")
    stage.interrupt_at(4)
    here = {"here": stage.repo.root / "bench", "matrix": "m.yaml"}
    check = stage.run(filter="model=mlp", override=limited(77.0), budget_s=120.0, **here)
    assert (check.status, counts(check), check.spent_s) == ("interrupted", {"mlp": (3, 0)}, 40.0)
    kept = check.cells[0].pairs
    stage.go_on()
    check = stage.resume(budget_s=60.0, matrix="whatever the flag's default is")
    assert (check.status, counts(check), kinds(check)) == ("complete", {"mlp": (3, 0)}, {"mlp": "inconclusive"})
    check = stage.resume(budget_s=500.0)
    assert (counts(check), kinds(check), check.budget_s) == ({"mlp": (8, 1)}, {"mlp": "pass"}, 500.0)
    assert (check.cells[0].pairs[:3], check.matrix_path) == (kept, "bench/m.yaml")
    assert check.spent_s == 40.0 + 5 * 10 + 10  # the interrupted pair's time was spent all the same
    stage.resume(override=limited(88.0))
    both = [side for setting in stage.settings for side in (setting.a, setting.b)]
    assert [side.matrix.limits.timeout_seconds for side in both] == [77.0] * 6 + [88.0] * 2
    for side in both:
        assert side.environ["PYTHONPATH"].split(os.pathsep)[:2] == [str(side.root), str(side.root / "bench")]
    assert stage.verified == [DATA] * 4


def test_a_killed_check_goes_on_from_its_lines(stage):
    stage.at(3, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        stage.run()
    folder = stage.folder
    assert len(folder.sessions()) == 2
    with folder.lock():
        folder.update_manifest(status="running", ended_at=None)  # a kill -9 writes no end
    stage.go_on()
    check = stage.resume()
    assert (counts(check), check.status) == ({"mlp": (9, 1), "lenet5": (9, 1)}, "complete")


@pytest.mark.parametrize("how", ["model.py", "more.py", "commit", "data"])
def test_what_has_changed_is_not_resumed(stage, monkeypatch, how):
    """But a branch may have moved on: the commit is what was compared. A new file of outputs is none of the tree's."""
    outputs = {"outputs": (stage.repo.root / "junit.xml",)}
    stage.repo.put("more.py", "x = 1\n")
    stage.repo.git("branch", "base")
    stage.interrupt_at(2)
    stage.run(against="base", **outputs)
    stage.go_on()
    stage.repo.put("junit.xml", "of this one")
    stage.repo.git("branch", "--force", "base", stage.repo.git("commit-tree", "HEAD^{tree}", "-m", "another"))
    check = stage.resume(budget_s=1.0, **outputs)
    assert (check.a.label, check.a.commit, check.status) == ("base", stage.first, "complete")
    if how == "data":
        monkeypatch.undo()  # the set is not at DATA.root at all
        with pytest.raises(DataError):
            stage.resume(**outputs)
        return
    if how == "commit":
        stage.repo.commit()
    else:
        stage.repo.put(how, "x = 2\n")
    with pytest.raises(UsageError, match="the working tree is not what it was"):
        stage.resume(**outputs)


@pytest.mark.parametrize("place", ["matrix", "check.matrix"])
def test_a_stranger_s_check_runs_no_code(stage, place):
    """Of the two matrices of its manifest, either."""
    stage.interrupt_at(2)
    stage.run()
    path = stage.folder.path / "manifest.json"
    manifest = json.loads(path.read_bytes())
    matrix = manifest["check"]["matrix"] if "check" in place else manifest["matrix"]
    matrix["models"][0]["model"] = "evilmod:build"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=rf"manifest.json: {place}: models\[0\].model: 'evilmod:build' is code"):
        stage.resume()


def test_a_run_is_no_check(tmp_path):
    run = make_manifest(run_id="20261123T101500Z-a1b2c3")
    RunFolder.create(tmp_path / "checks", run)
    with pytest.raises(UsageError, match="is a run, no check"):
        plan.find_check(tmp_path, run.run_id)


@pytest.mark.parametrize("text", ["", "20", "m", "-3m", "0s", "1e3s", "8000m0", "200h", "nan s", "1h30m", "٣m"])
def test_a_budget_that_is_none(text):
    with pytest.raises(UsageError, match="say 90s, 20m or 1h"):
        plan.parse_budget(text)
