"""The conditions, their order, and what becomes of verdicts; labels that are wrong; a gate that is a double."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from record_factory import make_cell
from selftest_kit import LENET5, MATRIX, MLP, PLAIN, made_check, make_workshop

from mnist_bench.cells import expand, model_of
from mnist_bench.data import cache_root, raw_folder, verify
from mnist_bench.data.mnist import FILE_NAMES, TRAIN_LABELS_FILE, proven, read_labels
from mnist_bench.data.synthetic import write_set
from mnist_bench.errors import DataError, UsageError
from mnist_bench.gate.records import Check, Verdict, VerdictKind
from mnist_bench.models import SELFTEST
from mnist_bench.records import Cell, DataSet, ModelEntry
from mnist_bench.selftest import conduct
from mnist_bench.selftest.conduct import checks, conditions
from mnist_bench.selftest.instruments import VARIABLE, instrumented, load_of, loads
from mnist_bench.selftest.labels import SpoiltSet, spoil
from mnist_bench.selftest.records import Condition, Mislabelled, Side, Slowed
from mnist_bench.selftest.sessions import Workshop
from mnist_bench.stats import Interval

CELLS = (MLP, LENET5)


class TestInstruments:
    def test_only_the_target_changes(self) -> None:
        changed = instrumented(MATRIX, CELLS)
        assert expand(changed) == expand(MATRIX)
        assert model_of(changed, "mlp") == ModelEntry(name="mlp", model=SELFTEST, optimizer="sgd", lr=0.01)
        assert model_of(changed, "lenet5").optimizer == "adam"

    def test_a_model_that_no_cell_needs_stays(self) -> None:
        assert model_of(instrumented(MATRIX, [MLP]), "lenet5").model == "lenet5"

    def test_a_built_in_that_only_include_names(self) -> None:
        cell = make_cell("cnn", batch_size=1000)
        matrix = replace(MATRIX, include=(cell,))
        changed = instrumented(matrix, [cell])
        assert expand(changed) == expand(matrix)
        assert model_of(changed, "cnn").model == SELFTEST

    def test_the_environment_says_what_and_how_much(self) -> None:
        text = loads(MATRIX, {MLP: 12, LENET5: 0})[VARIABLE]
        assert load_of(text, MLP.id) == ("mlp", 12)
        assert load_of(text, f"{LENET5.id}@B") == ("lenet5", 0)

    def test_another_recipe_is_refused(self) -> None:
        with pytest.raises(UsageError, match="recipe: tutorial"):
            instrumented(replace(MATRIX, recipe="tutorial"), CELLS)


class TestConditions:
    @pytest.fixture
    def found(self, tmp_path: Path) -> tuple[Condition, ...]:
        slowed = [
            Slowed(cell=cell, aim=aim, rows=rows, measured=Interval(aim + 0.002), sessions=4)
            for aim in (1.05, 1.10)
            for cell, rows in zip(CELLS, (10, 20), strict=True)
        ]
        spoilt = DataSet(name="mislabelled", root=str(tmp_path), sha256="1" * 64)
        wrong = Mislabelled(data=spoilt, fraction=0.2, drops={MLP: 0.004, LENET5: 0.009})
        return conditions(make_workshop(tmp_path), CELLS, slowed, wrong)

    def test_names_and_sizes(self, found: tuple[Condition, ...]) -> None:
        assert [one.name for one in found] == ["identical", "5 % slower", "10 % slower", "mislabelled"]
        assert found[0].size is None
        assert found[1].size == pytest.approx((0.052, 0.052))

    def test_identical_sides_are_the_users_own(self, found: tuple[Condition, ...]) -> None:
        assert found[0].a == found[0].b == Side(matrix=MATRIX, environ={"PATH": "/bin"}, data=PLAIN.data)

    def test_slow_sides_differ_in_their_rows_alone(self, found: tuple[Condition, ...]) -> None:
        a, b = found[1].a, found[1].b
        assert a.matrix == b.matrix == instrumented(MATRIX, CELLS)
        assert a.data == b.data
        assert load_of(a.environ[VARIABLE], MLP.id) == ("mlp", 0)
        assert load_of(b.environ[VARIABLE], LENET5.id) == ("lenet5", 20)
        assert {k: v for k, v in a.environ.items() if k != VARIABLE} == {"PATH": "/bin"}

    def test_a_cell_that_mislabelling_does_not_hurt_is_none_of_it(self, found: tuple[Condition, ...]) -> None:
        assert found[3].faulty == {LENET5}
        assert found[3].size == (0.009, 0.009)
        assert found[3].b.data.name == "mislabelled"
        assert (found[3].a.matrix, found[3].a.environ) == (found[3].b.matrix, found[3].b.environ)


class Gate:
    """Finds every fault; is interrupted in its ``stop``-th check."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.seen = stop, list[tuple[Side, Side, float]]()

    def __call__(self, a: Side, b: Side, cells: Sequence[Cell], budget_s: float) -> tuple[Check, Sequence[Verdict]]:
        self.seen.append((a, b, budget_s))
        kind: VerdictKind = "pass" if a == b else "regression"
        return made_check(dict.fromkeys(cells, kind), complete=len(self.seen) != self.stop)


WORSE = Condition(name="worse", a=PLAIN, b=replace(PLAIN, environ={"X": "1"}), faulty=frozenset(CELLS), size=(0.1, 0.1))


def run(gate: Gate, times: int = 2) -> list[tuple[str, set[str], float]]:
    ticks = iter(range(100))
    both = (Condition(name="identical", a=PLAIN, b=PLAIN), WORSE)
    made = checks(
        both, CELLS, times=times, budget_s=60.0, run_check=gate, clock=lambda: next(ticks), say=lambda text: None
    )
    return [(one.condition, {cell.kind for cell in one.cells}, one.seconds) for one in made]


def test_conditions_take_turns() -> None:
    assert run(Gate()) == [("identical", {"pass"}, 1), ("worse", {"regression"}, 1)] * 2


def test_an_interrupted_check_ends_it_and_counts_for_nothing() -> None:
    assert run(Gate(stop=3)) == [("identical", {"pass"}, 1), ("worse", {"regression"}, 1)]


def test_results_keep_pairs_and_estimates() -> None:
    (first, *_) = checks((WORSE,), CELLS, times=1, budget_s=60.0, run_check=Gate(), clock=lambda: 0.0, say=print)
    assert [(cell.cell, cell.pairs, cell.ratio, cell.change) for cell in first.cells] == [
        (MLP, 12, 1.1, None),
        (LENET5, 12, 1.1, None),
    ]


class TestMislabel:
    """The search for the share, with trainings that are made up."""

    @pytest.fixture
    def search(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Mislabelled | None]:
        def make(harm: float) -> Mislabelled | None:
            """``harm``: accuracy that mlp loses with all labels wrong; lenet5 loses twice as much."""

            def spoil(source: DataSet, root: Path, share: float, *, seed: int) -> SpoiltSet:
                return SpoiltSet(data=replace(source, root=str(share)), fraction=share)

            def train(workshop: Workshop, cell: Cell, seed: int) -> float:
                share = 0.0 if workshop.data == PLAIN.data else float(workshop.data.root)
                return 0.97 - harm * share * (1 if cell == MLP else 2)

            monkeypatch.setattr(conduct, "spoil", spoil)
            monkeypatch.setattr(conduct, "train", train)
            return conduct.mislabel(make_workshop(tmp_path), CELLS, lambda text: None)

        return make

    def test_the_least_share_that_costs_every_cell_enough(self, search: Callable[[float], Mislabelled | None]) -> None:
        found = search(0.02)
        assert found is not None
        assert found.fraction == 0.4
        assert found.drops == pytest.approx({MLP: 0.008, LENET5: 0.016})

    def test_the_worst_share_where_some_cell_bears_it(self, search: Callable[[float], Mislabelled | None]) -> None:
        found = search(0.005)
        assert found is not None
        assert (found.fraction, found.drops[LENET5]) == (0.8, pytest.approx(0.008))

    def test_none_where_no_cell_minds(self, search: Callable[[float], Mislabelled | None]) -> None:
        assert search(0.001) is None


class TestLabels:
    @pytest.fixture
    def source(self, tmp_path: Path) -> DataSet:
        write_set(tmp_path / "set", seed=5, sizes=(400, 100))
        return proven("synthetic", tmp_path / "set", None)

    def test_a_share_of_the_labels_is_wrong_and_nothing_else(self, source: DataSet, tmp_path: Path) -> None:
        spoilt = spoil(source, tmp_path / "spoilt", 0.3, seed=1)
        old, new = (read_labels(raw_folder(Path(data.root)) / TRAIN_LABELS_FILE) for data in (source, spoilt.data))
        assert spoilt.fraction == np.mean(old != new)
        assert 0.2 < spoilt.fraction <= 0.3
        assert sorted(old) == sorted(new), "shuffled among themselves"
        for name in FILE_NAMES:
            same = (raw_folder(Path(source.root)) / name).read_bytes() == (
                tmp_path / "spoilt/MNIST/raw" / name
            ).read_bytes()
            assert same == (name != TRAIN_LABELS_FILE)

    def test_it_is_a_verified_set_of_its_own_that_nothing_remembers(self, source: DataSet, tmp_path: Path) -> None:
        environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        spoilt = spoil(source, tmp_path / "spoilt", 0.3, seed=1)
        assert spoilt.data.sha256 != source.sha256
        verify(spoilt.data, environ=environ)
        assert not cache_root(environ).exists()
        verify(source, environ=environ)

    def test_a_change_of_it_is_found(self, source: DataSet, tmp_path: Path) -> None:
        spoilt = spoil(source, tmp_path / "spoilt", 0.3, seed=1)
        labels = tmp_path / "spoilt/MNIST/raw" / TRAIN_LABELS_FILE
        content = bytearray(labels.read_bytes())
        content[-1] = (content[-1] + 1) % 10
        labels.write_bytes(content)
        with pytest.raises(DataError, match="selftest` again"):
            verify(spoilt.data, environ={"XDG_CACHE_HOME": str(tmp_path / "cache")})
