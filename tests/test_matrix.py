"""Cells, filters, groups and order: pure functions, checked by property where one can be named."""

import doctest
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from mnist_bench import cells
from mnist_bench.cli import options
from mnist_bench.errors import UsageError
from mnist_bench.gate import judge, plan, samples
from mnist_bench.machine import forecast, shards
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Matrix, ModelEntry, Selector, Timing, Variant

MATRIX = Matrix(
    models=(ModelEntry(name="mlp", model="mlp"), ModelEntry(name="mine", model="pkg:build", lr=0.1)),
    devices=("cpu", "cuda"),
    batch_sizes=(100, 1000),
    variants=(Variant(name="eager"), Variant(name="half", precision="bf16")),
)
CELLS = cells.expand(MATRIX)


def matrix_of(models: int, devices: int, sizes: int, variants: int) -> Matrix:
    return Matrix(
        models=tuple(ModelEntry(name=name, model=name) for name in "abcd"[:models]),
        devices=tuple("abcd"[:devices]),
        batch_sizes=tuple(range(1, sizes + 1)),
        variants=tuple(Variant(name=name) for name in "abcd"[:variants]),
    )


cell_lists = st.builds(matrix_of, *(st.integers(1, 4) for _ in range(4))).map(cells.expand)
seed_lists = st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True)
own = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("module", [cells, forecast, options, judge, plan, samples, shards])
def test_examples(module):
    tried = doctest.testmod(module)
    assert (tried.attempted > 0, tried.failed) == (True, 0)


def test_excluded_by_every_key_and_included_after_all():
    first = ["mlp/cpu/b100/eager", "mlp/cpu/b100/half", "mlp/cpu/b1000/eager", "mlp/cpu/b1000/half"]
    assert [cell.id for cell in CELLS[:5]] == [*first, "mlp/cuda/b100/eager"]
    selectors = (Selector(model="mlp", device="cuda"), Selector(batch_size=1000, variant="half"))
    kept = cells.expand(replace(MATRIX, exclude=selectors, include=CELLS[-1:]))
    gone = {cell for cell in CELLS if (cell.model, cell.device) == ("mlp", "cuda") or cell.id.endswith("/b1000/half")}
    assert kept == (*(cell for cell in CELLS if cell not in gone), CELLS[-1])


class TestNames:
    def test_of_the_axes_first_else_built_in_else_unknown(self):
        changed = replace(MATRIX, models=(ModelEntry(name="mlp", model="mlp", lr=0.5),))
        assert cells.model_of(changed, "mlp").lr == 0.5
        assert cells.model_of(MATRIX, "lenet5") == ModelEntry(name="lenet5", model="lenet5")
        with pytest.raises(UsageError, match=r"unknown model 'vgg' \(known: cnn, lenet5, mine, mlp\)"):
            cells.model_of(MATRIX, "vgg")
        with pytest.raises(UsageError, match="unknown variant 'fast'"):
            cells.variant_of(MATRIX, "fast")

    def test_variants_that_only_include_names_come_after_the_axis_and_once(self):
        names = ("compile", "half", "compile", "tutorial")
        extra = tuple(Cell(model="mlp", device="cpu", batch_size=n, variant=name) for n, name in enumerate(names, 1))
        found = cells.variants_of(replace(MATRIX, include=extra))
        assert found == (*MATRIX.variants, BUILTIN_VARIANTS["compile"], BUILTIN_VARIANTS["tutorial"])

    @pytest.mark.parametrize(
        ("names", "include", "reference", "found"),
        [
            (("half", "eager", "plain"), None, None, "eager"),
            (("half", "plain"), None, None, "plain"),
            (("half", "plain"), None, "half", "half"),
            (("half",), "eager", None, "eager"),
            (("half", "plain"), "eager", None, "plain"),
            (("half",), "compile", None, None),
        ],
    )
    def test_reference(self, names, include, reference, found):
        extra = [Cell(model="mlp", device="cpu", batch_size=1, variant=include)] if include else []
        variants = tuple(Variant(name=name, precision="bf16" if name == "half" else "fp32") for name in names)
        matrix = replace(MATRIX, variants=variants, include=tuple(extra), reference=reference)
        assert cells.reference_variant(matrix) == found


def test_keys_of_a_filter_narrow_and_values_widen():
    chosen = cells.select(CELLS, "model=mlp, device=cpu,batch_size=100,batch_size=1000")
    assert chosen == tuple(cell for cell in CELLS if (cell.model, cell.device) == ("mlp", "cpu"))
    assert cells.select(CELLS, None) == CELLS


class TestGroups:
    @own
    @given(cell_lists, seed_lists)
    def test_partition_the_trials(self, points, seeds):
        gathered = cells.groups(points, seeds)
        trials = [trial for _, members in gathered for trial in members]
        assert Counter(trials) == Counter((cell, seed) for cell in points for seed in seeds)
        assert len({name for name, _ in gathered}) == len(gathered)
        for _, members in gathered:
            assert len({(cell.model, cell.batch_size, seed) for cell, seed in members}) == 1

    @own
    @given(cell_lists, seed_lists, st.integers())
    def test_order_keeps_all_and_spreads_seeds(self, points, seeds, chance):
        gathered = cells.groups(points, seeds)
        shuffled = cells.order(gathered, random.Random(chance))
        assert Counter(shuffled) == Counter(gathered)
        assert shuffled == cells.order(gathered, random.Random(chance))
        per_seed = len(gathered) // len(seeds)
        assert [members[0][1] for _, members in shuffled] == [seed for seed in seeds for _ in range(per_seed)]
        whole = cells.groups(CELLS, [0])
        orders = {tuple(name for name, _ in cells.order(whole, random.Random(chance + n))) for n in range(60)}
        assert len(orders) > 12, "random within a seed"


def test_a_fingerprint_is_of_the_values_and_of_all_of_them():
    adapter = TypeAdapter(Matrix)
    assert cells.fingerprint(MATRIX) == cells.fingerprint(adapter.validate_json(adapter.dump_json(MATRIX)))
    changed = [replace(MATRIX, seeds=(0, 2, 1)), replace(MATRIX, timing=Timing(precision=0.03))]
    assert len({cells.fingerprint(matrix) for matrix in (MATRIX, *changed)}) == 3
