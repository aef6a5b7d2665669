"""A sitting of a check from a real repository to evidence on disk; the measurements are made up."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from check_kit import CRASH, MATRIX, FakeBench, Repo, clean_environ, made_up_rules, of_kind

from mnist_bench.checks import measure, plan, sitting
from mnist_bench.checks.events import CheckEvent, CheckStarted
from mnist_bench.checks.folder import CheckFolder
from mnist_bench.checks.plan import Plan, Request
from mnist_bench.errors import BenchError, ConfigError, Interrupted, UsageError
from mnist_bench.events import Notice
from mnist_bench.gate.records import Check
from mnist_bench.gate.sides import Imports, Side
from mnist_bench.interrupts import Interrupts
from mnist_bench.protocol import PROTOCOL_VERSION
from mnist_bench.records import Cell, DataSet


class Stage:
    """A repository with two commits, and what stands in for workers."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.repo = Repo(tmp_path / "the project")
        self.repo.put("bench/m.yaml", MATRIX)
        self.repo.put("model.py", "WIDTH = 1\n")
        self.first = self.repo.commit()
        self.out = tmp_path / "out"
        self.cache = tmp_path / "cache"
        self.events: list[CheckEvent] = []
        self.bench = FakeBench()
        self.benches: list[dict[str, Any]] = []
        self.asked: list[Side] = []
        self.protocols = {"A": PROTOCOL_VERSION, "B": PROTOCOL_VERSION}
        self.data = DataSet(name="synthetic", root="/data", sha256="0" * 64)
        self.unchanged: Callable[[], None] = lambda: None
        monkeypatch.setattr(measure, "Workbench", self._bench)
        monkeypatch.setattr(sitting.sides, "ask", self._ask)
        monkeypatch.setattr(sitting.data, "resolve", lambda *args, **kwargs: self.data)
        monkeypatch.setattr(sitting.time, "monotonic", self.bench.clock)

    def _bench(self, **arguments: Any) -> FakeBench:
        self.benches.append(arguments)
        self.unchanged = arguments["unchanged"]
        return self.bench

    def _ask(self, side: Side, interrupts: Interrupts) -> Imports:
        self.asked.append(side)
        assert side.root.is_dir()
        return Imports(protocol=self.protocols[side.name], places={"mnist_bench": "/installed/mnist_bench/__init__.py"})

    def request(self, **changes: Any) -> Request:
        usual = Request(
            here=self.repo.root,
            environ=clean_environ(XDG_CACHE_HOME=str(self.cache)),
            matrix=Path("bench/m.yaml"),
            against="main",
            output_dir=self.out,
            data_root=Path("/data"),
            override=lambda matrix: matrix,
        )
        return replace(usual, **changes)

    def run(self, **changes: Any) -> tuple[CheckFolder, Check]:
        return self._execute(plan.plan(self.request(**changes)))

    def resume(self, reference: str = "latest", **changes: Any) -> tuple[CheckFolder, Check]:
        folder = CheckFolder.open(self.out, reference)
        return self._execute(plan.plan_again(folder, self.request(**{"against": "", **changes})))

    def _execute(self, planned: Plan) -> tuple[CheckFolder, Check]:
        return sitting.execute(planned, self.events.append, lambda cells, margins: made_up_rules())

    def tree_file(self, name: str) -> str:
        """Of the reference's tree, while it is there."""
        return (self.benches[-1]["sides"]["A"].root / name).read_text()

    def nothing_left(self) -> None:
        trees = self.cache / "mnist_bench" / "worktrees"
        assert not trees.exists() or list(trees.iterdir()) == []
        assert self.repo.worktrees() == [str(self.repo.root)]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.nothing_left()


def verdictless(check: Check) -> dict[str, tuple[str, int, int]]:
    return {one.cell.model: (one.sides, len(one.pairs), len(one.seeds)) for one in check.cells}


def test_a_dirty_tree_against_its_last_commit(stage: Stage) -> None:
    stage.repo.put("model.py", "WIDTH = 2\n")
    stage.repo.put("more.py", "")
    seen: list[str] = []
    stage.bench.pairs = lambda cell, number: seen.append(stage.tree_file("model.py"))
    folder, check = stage.run()
    assert verdictless(check) == {"mlp": ("both", 3, 1), "lenet5": ("both", 3, 1)}
    assert set(seen) == {"WIDTH = 1\n"}
    assert (check.a.label, check.a.commit) == ("main", stage.first)
    assert (check.b.label, check.b.commit) == ("working tree", stage.first)
    assert sorted(check.b.changed) == ["model.py", "more.py"]
    assert (check.status, check.matrix_path, check.mode) == ("complete", "bench/m.yaml", "against")
    assert check.spent_s == 80.0
    assert folder.check() == check
    sides = stage.benches[0]["sides"]
    assert sides["B"].root == stage.repo.root
    assert sides["A"].matrix_path == sides["A"].root / "bench" / "m.yaml"
    (started,) = of_kind(stage.events, CheckStarted)
    assert isinstance(started, CheckStarted)
    assert started.b == check.b


def test_each_side_reads_its_own_matrix(stage: Stage) -> None:
    stage.repo.put("bench/m.yaml", MATRIX.replace("mlp, lenet5", "cnn, lenet5").replace("seeds: 2", "seeds: [5]"))
    _, check = stage.run()
    assert verdictless(check) == {"cnn": ("only B", 0, 0), "lenet5": ("both", 3, 1), "mlp": ("only A", 0, 0)}
    assert check.cells[1].seeds[0].seed == 5
    assert stage.bench.count("cnn solo") == 1


def test_a_reference_without_the_matrix(stage: Stage) -> None:
    stage.repo.put("other.yaml", MATRIX)
    _, check = stage.run(matrix=Path("other.yaml"))
    assert {one.sides for one in check.cells} == {"only B"}
    assert check.notes == ("main has no other.yaml: every cell is new, and nothing can be compared",)
    assert [event.text for event in stage.events if isinstance(event, Notice)] == list(check.notes)
    assert stage.asked == []


def test_other_requirements_are_told_since_both_sides_have_one_environment(stage: Stage) -> None:
    stage.repo.put("pyproject.toml", "[project]\n")
    stage.repo.put("bench/requirements.txt", "torch\n")
    stage.repo.put("setup.cfg", "[metadata]\n")
    stage.repo.commit()
    stage.repo.put("pyproject.toml", "[project]\nname = 'x'\n")
    (stage.repo.root / "bench" / "requirements.txt").unlink()
    stage.repo.put("poetry.lock", "")
    _, check = stage.run()
    (note,) = check.notes
    assert note.startswith("pyproject.toml, poetry.lock, bench/requirements.txt: other in A than in B; both ran with")


def test_a_matrix_of_the_reference_with_problems_names_it(stage: Stage) -> None:
    stage.repo.put("bench/m.yaml", "version: 1\nmodel: []\n")
    stage.repo.commit()
    stage.repo.put("bench/m.yaml", MATRIX)
    with pytest.raises(ConfigError, match=r"main:bench/m\.yaml:2:1: "):
        stage.run()
    assert not stage.out.exists()


def test_other_protocols_are_not_compared_and_both_numbers_said(stage: Stage) -> None:
    stage.protocols["A"] = 1
    _, check = stage.run()
    words = f"protocol version: 1 in A, {PROTOCOL_VERSION} in B: their workers cannot be paired"
    assert {one.differences for one in check.cells} == {(words,)}
    assert sorted(stage.bench.done) == ["lenet5 solo 0", "mlp solo 0"]  # whether B works all the same


def test_a_reference_that_does_not_import_stops_all(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(side: Side, interrupts: Interrupts) -> Imports:
        raise BenchError(f"{side.label} does not import")

    monkeypatch.setattr(sitting.sides, "ask", broken)
    with pytest.raises(BenchError, match=r"A \(main\) does not import"):
        stage.run()
    assert not stage.out.exists()


@pytest.mark.parametrize("change", [{"against": "nope"}, {"filter": "colour=red"}])
def test_bad_input_is_refused_before_anything_is_made(stage: Stage, change: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        plan.plan(stage.request(**change))
    assert not stage.cache.exists()


def test_a_tree_that_is_changed_meanwhile_is_noticed(stage: Stage) -> None:
    def pairs(cell: Cell, number: int) -> Any:
        stage.unchanged()
        if number == 2:
            stage.repo.put("model.py", "WIDTH = 9\n")
            stage.unchanged()

    stage.bench.pairs = pairs
    with pytest.raises(BenchError, match="the working tree was changed while it was measured"):
        stage.run()
    check = CheckFolder.open(stage.out, "latest").check()
    assert sum(len(one.pairs) for one in check.cells) == 2
    assert check.status == "interrupted"


def test_a_tree_that_is_changed_before_its_turn_is_not_measured(stage: Stage) -> None:
    planned = plan.plan(stage.request())
    stage.repo.put("model.py", "WIDTH = 2\n")
    with pytest.raises(UsageError, match="changed while the check waited for its turn: start it again"):
        sitting.execute(planned, stage.events.append)
    assert not stage.out.exists()


def test_an_environment_in_the_tree_is_no_change(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the Python that runs both sides; another folder that git does not know is part of what is checked."""
    monkeypatch.setattr(sys, "prefix", str(stage.repo.root / ".venv"))
    stage.repo.put(".venv/pyvenv.cfg", "")
    stage.repo.put("more/part.py", "")
    assert stage.run()[1].b.changed == ("more/part.py",)


def test_what_the_program_writes_in_the_tree_is_no_change(stage: Stage) -> None:
    """Results, images, cache and the files that are asked for may lie there, whether git is to ignore them or not."""
    root = stage.repo.root
    stage.out, stage.cache = root, root / "cache dir"
    places = {"output_dir": root, "data_root": root / "images", "outputs": (root / "junit.xml",)}
    stage.repo.put("junit.xml", "of the last check")
    for turn in range(2):

        def pairs(cell: Cell, number: int, turn: int = turn) -> Any:
            stage.repo.put("images/MNIST/raw/labels", f"{turn}{number}")
            stage.repo.put("cache dir/mnist_bench/known.json", f"{turn}{number}")
            stage.repo.put("junit.xml", f"{turn}{number}")
            stage.unchanged()

        stage.bench.pairs = pairs
        _, check = stage.run(**places)
        assert check.status == "complete"
        assert [name for name in check.b.changed if not name.startswith("checks/")] == []


# ── interrupted, killed, resumed ─────────────────────────────────────────────────────────────────────────────────────


def interrupt_at(stage: Stage, count: int, error: BaseException) -> None:
    def pairs(cell: Cell, number: int) -> Any:
        return error if stage.bench.count("pair") == count else None

    stage.bench.pairs = pairs


def test_an_interrupted_check_keeps_its_pairs_and_goes_on(stage: Stage) -> None:
    stage.repo.put("model.py", "WIDTH = 2\n")
    interrupt_at(stage, 4, Interrupted("interrupted"))
    folder, check = stage.run(filter="model=mlp,model=lenet5")
    assert check.status == "interrupted"
    assert sum(len(one.pairs) for one in check.cells) == 3
    assert (folder.path / "pairs.jsonl").read_bytes().count(b"\n") == 3
    stage.nothing_left()
    kept = {one.cell: one.pairs for one in check.cells}

    stage.bench.pairs = lambda cell, number: None
    again, resumed = stage.resume()
    assert again.path == folder.path
    assert resumed.status == "complete"
    assert verdictless(resumed) == {"mlp": ("both", 3, 1), "lenet5": ("both", 3, 1)}
    for one in resumed.cells:
        assert one.pairs[: len(kept[one.cell])] == kept[one.cell]
    assert resumed.spent_s == 90.0  # the interrupted pair's time was spent all the same
    assert stage.bench.count("seed") == 2


def test_a_killed_check_goes_on_from_its_lines(stage: Stage) -> None:
    interrupt_at(stage, 3, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        stage.run()
    folder = CheckFolder.open(stage.out, "latest")
    folder.update(status="running", spent_s=0.0)  # a kill -9 writes no end
    stage.bench.pairs = lambda cell, number: None
    _, check = stage.resume()
    assert verdictless(check) == {"mlp": ("both", 3, 1), "lenet5": ("both", 3, 1)}
    assert check.spent_s == 80.0


def test_the_budget_is_over_all_sittings_and_can_be_raised(stage: Stage) -> None:
    interrupt_at(stage, 2, Interrupted("interrupted"))
    stage.run(budget_s=85.0)
    stage.bench.pairs = lambda cell, number: None
    before = stage.bench.now
    _, check = stage.resume(budget_s=85.0)
    assert stage.bench.now - before <= 85.0 - 40.0
    assert sorted(len(one.pairs) for one in check.cells) == [1, 3] or sorted(len(one.pairs) for one in check.cells) == [
        0,
        3,
    ]
    _, check = stage.resume(budget_s=500.0)
    assert sorted(len(one.pairs) for one in check.cells) == [3, 3]
    assert check.budget_s == 500.0


def test_a_time_limit_is_kept_when_a_check_is_resumed_unless_another_is_given(stage: Stage) -> None:
    stage.run(timeout_s=77.0)
    stage.resume()
    assert stage.benches[-1]["timeout_s"] == 77.0
    stage.resume(timeout_s=5.0)
    assert stage.benches[-1]["timeout_s"] == 5.0


def test_a_complete_check_that_is_resumed_measures_nothing(stage: Stage) -> None:
    stage.bench.pairs = lambda cell, number: (CRASH,) if cell.model == "mlp" else None
    _, check = stage.run()
    before = list(stage.bench.done)
    _, again = stage.resume()
    assert stage.bench.done == before
    assert again.cells == check.cells


@pytest.mark.parametrize("how", ["edit", "new file", "commit"])
def test_a_changed_tree_is_not_resumed(stage: Stage, how: str) -> None:
    stage.repo.put("more.py", "x = 1\n")
    interrupt_at(stage, 2, Interrupted("interrupted"))
    stage.run()
    if how == "edit":
        stage.repo.put("model.py", "WIDTH = 2\n")
    elif how == "new file":
        stage.repo.put("more.py", "x = 2\n")
    else:
        stage.repo.commit()
    with pytest.raises(UsageError, match="the working tree is not what it was"):
        stage.resume()


def test_a_reference_that_has_moved_on_is_refused_where_it_is_named(stage: Stage) -> None:
    stage.repo.git("branch", "base")
    interrupt_at(stage, 2, Interrupted("interrupted"))
    stage.run(against="base")
    empty = stage.repo.git("commit-tree", "HEAD^{tree}", "-m", "another")
    stage.repo.git("branch", "--force", "base", empty)
    with pytest.raises(UsageError, match=r"base is .* now, the check was begun against"):
        stage.resume(against="base")
    stage.bench.pairs = lambda cell, number: None
    _, check = stage.resume()
    assert (check.a.label, check.a.commit, check.status) == ("base", stage.first, "complete")


def test_another_data_set_is_not_mixed_in(stage: Stage) -> None:
    interrupt_at(stage, 2, Interrupted("interrupted"))
    stage.run()
    stage.data = replace(stage.data, sha256="1" * 64)
    with pytest.raises(UsageError, match="the data set at /data is another one than it was"):
        stage.resume()


def test_an_output_that_the_interrupted_sitting_wrote_does_not_keep_it_from_going_on(stage: Stage) -> None:
    outputs = {"outputs": (stage.repo.root / "junit.xml",)}
    stage.repo.put("junit.xml", "of the last check")
    interrupt_at(stage, 2, Interrupted("interrupted"))
    stage.run(**outputs)
    stage.repo.put("junit.xml", "of this one")
    stage.bench.pairs = lambda cell, number: None
    assert stage.resume()[1].status == "complete"


def test_workers_find_the_same_code_wherever_the_check_is_resumed(stage: Stage) -> None:
    interrupt_at(stage, 2, Interrupted("interrupted"))
    stage.run(here=stage.repo.root / "bench", matrix=Path("m.yaml"))
    stage.bench.pairs = lambda cell, number: None
    stage.resume(here=stage.repo.root)
    first, second = (
        [str(Path(entry).relative_to(side.root)) for entry in side.environ["PYTHONPATH"].split(os.pathsep)[:2]]
        for side in (stage.benches[0]["sides"]["A"], stage.benches[1]["sides"]["A"])
    )
    assert first == second == [".", "bench"]


def test_from_a_folder_below_the_root(stage: Stage) -> None:
    interrupt_at(stage, 2, Interrupted("interrupted"))
    here = stage.repo.root / "bench"
    stage.run(here=here, matrix=Path("m.yaml"))
    stage.bench.pairs = lambda cell, number: None
    _, check = stage.resume(here=here, matrix=Path("whatever the flag's default is"))
    assert (check.status, check.matrix_path) == ("complete", "bench/m.yaml")
