"""Cells, filters, groups, order and shards: pure functions, checked by property where one can be named."""

from __future__ import annotations

import dataclasses
import doctest
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from mnist_bench import cells as module
from mnist_bench.cells import (
    expand,
    fingerprint,
    groups,
    model_of,
    order,
    parse_shard,
    reference_variant,
    select,
    shard,
    variant_of,
    variants_of,
)
from mnist_bench.errors import UsageError
from mnist_bench.records import Cell, Matrix, ModelEntry, Selector, Timing, Variant

MATRIX = Matrix(
    models=(ModelEntry(name="mlp", model="mlp"), ModelEntry(name="mine", model="pkg:build", lr=0.1)),
    devices=("cpu", "cuda"),
    batch_sizes=(100, 1000),
    variants=(Variant(name="eager"), Variant(name="half", precision="bf16")),
)
CELLS = expand(MATRIX)


def matrix_of(models: int, devices: int, sizes: int, variants: int) -> Matrix:
    return Matrix(
        models=tuple(ModelEntry(name=name, model=name) for name in "abcd"[:models]),
        devices=tuple("abcd"[:devices]),
        batch_sizes=tuple(range(1, sizes + 1)),
        variants=tuple(Variant(name=name) for name in "abcd"[:variants]),
    )


cell_lists = st.builds(matrix_of, *(st.integers(1, 4) for _ in range(4))).map(expand)
seed_lists = st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True)
own = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_examples() -> None:
    tried = doctest.testmod(module)
    assert tried.attempted > 10
    assert tried.failed == 0


class TestExpand:
    def test_order_of_the_file(self) -> None:
        first = ["mlp/cpu/b100/eager", "mlp/cpu/b100/half", "mlp/cpu/b1000/eager", "mlp/cpu/b1000/half"]
        assert [cell.id for cell in CELLS[:5]] == [*first, "mlp/cuda/b100/eager"]
        assert len(CELLS) == 16

    def test_exclude_needs_every_key(self) -> None:
        selectors = (Selector(model="mlp", device="cuda"), Selector(batch_size=1000, variant="half"))
        kept = expand(dataclasses.replace(MATRIX, exclude=selectors))
        assert len(kept) == 16 - 4 - 4 + 1
        assert not any(cell.model == "mlp" and cell.device == "cuda" for cell in kept)

    def test_include_comes_last_and_after_exclude(self) -> None:
        kept = expand(dataclasses.replace(MATRIX, exclude=(Selector(model="mlp"),), include=CELLS[:1]))
        assert (len(kept), kept[-1]) == (9, CELLS[0])


class TestNames:
    def test_of_the_axes_first_else_built_in_else_unknown(self) -> None:
        changed = dataclasses.replace(MATRIX, models=(ModelEntry(name="mlp", model="mlp", lr=0.5),))
        assert model_of(changed, "mlp").lr == 0.5
        assert variant_of(MATRIX, "half").precision == "bf16"
        assert model_of(MATRIX, "lenet5") == ModelEntry(name="lenet5", model="lenet5")
        assert variant_of(MATRIX, "channels-last").channels_last
        with pytest.raises(UsageError, match=r"unknown model 'vgg' \(known: cnn, lenet5, mine, mlp\)"):
            model_of(MATRIX, "vgg")
        with pytest.raises(UsageError, match="unknown variant 'fast'"):
            variant_of(MATRIX, "fast")

    def test_variants_that_only_include_names_come_after_the_axis_and_once(self) -> None:
        names = ("compile", "half", "compile", "tutorial")
        extra = tuple(Cell(model="mlp", device="cpu", batch_size=n, variant=name) for n, name in enumerate(names, 1))
        found = variants_of(dataclasses.replace(MATRIX, include=extra))
        assert [variant.name for variant in found] == ["eager", "half", "compile", "tutorial"]
        assert (found[1].precision, found[2].execution) == ("bf16", "compile")

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
    def test_reference(self, names: tuple[str, ...], include: str | None, reference: str | None, found: str) -> None:
        extra = [Cell(model="mlp", device="cpu", batch_size=1, variant=include)] if include else []
        variants = tuple(Variant(name=name, precision="bf16" if name == "half" else "fp32") for name in names)
        matrix = dataclasses.replace(MATRIX, variants=variants, include=tuple(extra), reference=reference)
        assert reference_variant(matrix) == found


class TestFilter:
    def test_keys_narrow_and_values_widen(self) -> None:
        chosen = select(CELLS, "model=mlp, device=cpu,batch_size=100,batch_size=1000")
        assert [cell.id for cell in chosen] == [c.id for c in CELLS if c.model == "mlp" and c.device == "cpu"]

    def test_none_is_everything(self) -> None:
        assert select(CELLS, None) == CELLS

    @pytest.mark.parametrize(
        ("text", "phrase"),
        [
            ("", "is not of the form key=value"),
            ("model", "'model' is not of the form"),
            ("model=", "is not of the form"),
            ("=mlp", "is not of the form"),
            ("model=mlp,", "'' is not of the form"),
            ("seed=0", r"unknown key 'seed' \(known: model, device, batch_size, variant\)"),
            ("model=vgg", r"unknown model 'vgg' \(known: mlp, mine\)"),
            ("batch_size=10", r"unknown batch_size '10' \(known: 100, 1000\)"),
            ("device=cuda:1", r"unknown device 'cuda:1' \(known: cpu, cuda\)"),
        ],
    )
    def test_refused(self, text: str, phrase: str) -> None:
        with pytest.raises(UsageError, match=phrase):
            select(CELLS, text)

    def test_known_values_that_no_cell_has_together(self) -> None:
        with pytest.raises(UsageError, match="no cell has them together"):
            select([c for c in CELLS if (c.model, c.device) != ("mlp", "cpu")], "model=mlp,device=cpu")


class TestGroups:
    @own
    @given(cell_lists, seed_lists)
    def test_partition_the_trials(self, cells: tuple[Cell, ...], seeds: list[int]) -> None:
        gathered = groups(cells, seeds)
        trials = [trial for _, members in gathered for trial in members]
        assert Counter(trials) == Counter((cell, seed) for cell in cells for seed in seeds)
        assert len({name for name, _ in gathered}) == len(gathered)
        for _, members in gathered:
            assert len({(cell.model, cell.batch_size, seed) for cell, seed in members}) == 1

    @own
    @given(cell_lists, seed_lists, st.integers())
    def test_order_keeps_all_and_spreads_seeds(self, cells: tuple[Cell, ...], seeds: list[int], chance: int) -> None:
        gathered = groups(cells, seeds)
        shuffled = order(gathered, random.Random(chance))
        assert Counter(shuffled) == Counter(gathered)
        assert shuffled == order(gathered, random.Random(chance))
        per_seed = len(gathered) // len(seeds)
        assert [members[0][1] for _, members in shuffled] == [seed for seed in seeds for _ in range(per_seed)]

    def test_order_is_random_within_a_seed(self) -> None:
        gathered = groups(CELLS, [0])
        orders = {tuple(name for name, _ in order(gathered, random.Random(chance))) for chance in range(60)}
        assert len(orders) > 12

    @own
    @given(cell_lists, seed_lists, st.integers(1, 9))
    def test_shards_partition(self, cells: tuple[Cell, ...], seeds: list[int], count: int) -> None:
        gathered = groups(cells, seeds)
        parts = [shard(gathered, *parse_shard(f"{k}/{count}")) for k in range(1, count + 1)]
        assert Counter(group for part in parts for group in part) == Counter(gathered)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1

    @pytest.mark.parametrize(
        "text", ["", "2", "0/4", "5/4", "a/b", "1/", "/2", "1/2/3", "-1/2", "1.0/2", "²/3", "9" * 20]
    )
    def test_shards_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="is not K/N"):
            parse_shard(text)


class TestFingerprint:
    def test_is_of_the_values(self) -> None:
        adapter = TypeAdapter(Matrix)
        assert fingerprint(MATRIX) == fingerprint(adapter.validate_json(adapter.dump_json(MATRIX)))
        assert len(fingerprint(MATRIX)) == 64

    @pytest.mark.parametrize(
        "change",
        [
            {"epochs": 3},
            {"seeds": (0, 2, 1)},
            {"devices": ("cuda", "cpu")},
            {"models": MATRIX.models[:1]},
            {"exclude": (Selector(model="mlp"),)},
            {"timing": Timing(precision=0.03)},
        ],
    )
    def test_every_change_shows(self, change: dict[str, object]) -> None:
        assert fingerprint(dataclasses.replace(MATRIX, **change)) != fingerprint(MATRIX)  # type: ignore[arg-type]
