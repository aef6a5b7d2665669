"""What must be the same for two measurements to be compared."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from record_factory import make_cell, make_manifest, make_matrix, make_measurement

from mnist_bench.comparability import FIELDS, Difference, Key, differences, key_of, ranked, settings, settings_sha256
from mnist_bench.records import BUILTIN_VARIANTS, CompileOptions, Manifest, ModelEntry, Variant

CELL = make_cell(variant="compile")


def manifest(**changes: Any) -> Manifest:
    return make_manifest(matrix=make_matrix(**changes))


def key(made: Manifest | None = None, **changes: Any) -> Key:
    return replace(key_of(made or manifest(), CELL, make_measurement()), **changes)


def test_key_of_a_cpu_cell() -> None:
    found = key()
    assert (found.cpu, found.gpu, found.driver, found.threads, found.cores) == ("AMD EPYC", None, None, 2, 2)
    assert (found.torch, found.recipe, found.epochs) == ("2.13.0+cpu", "standard", 2)


def test_key_of_a_gpu_cell_has_its_name_and_driver() -> None:
    made = manifest()
    environment = replace(made.environment, details={"nvidia_driver": "550.1"})
    cell = make_cell(device="cuda:1")
    found = key_of(replace(made, environment=environment), cell, make_measurement(device_name="NVIDIA H100"))
    assert (found.gpu, found.driver, found.cpu) == ("NVIDIA H100", "550.1", "AMD EPYC")
    assert key_of(replace(made, environment=environment), CELL, make_measurement()).driver is None


def test_every_field_of_the_key_is_ranked() -> None:
    assert {field.name for field in fields(Key)} == set(FIELDS)


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_makes_a_difference(field: str) -> None:
    one = key(driver="550")
    other = replace(one, **{field: "another"})
    (found,) = differences(one, other)
    assert (found.field, found.b) == (field, "another")
    assert found.name == FIELDS[field][0]
    assert differences(other, one)[0].a == "another"


def test_equal_keys_do_not_differ() -> None:
    assert differences(key(), key()) == ()


def test_unknown_is_said_so_and_an_unknown_driver_does_not_count() -> None:
    assert differences(key(), key(driver="550")) == ()
    assert differences(key(torch=None), key())[0].a == "unknown"


def test_what_matters_most_comes_first() -> None:
    found = differences(key(), key(epochs=3, cores=8, cpu="Intel", dataset_sha256="f" * 64))
    assert [one.field for one in found] == ["cpu", "cores", "epochs", "dataset_sha256"]
    assert found[-1].b == "f" * 12
    assert [one.affects for one in found] == ["speed", "speed", "accuracy", "accuracy"]
    assert ranked([*reversed(found), *found]) == found


def test_ranked_keeps_two_values_of_one_field() -> None:
    one, other = Difference(field="cpu", a="x", b="y"), Difference(field="cpu", a="x", b="z")
    assert ranked([one, other, one]) == (one, other)


class TestSettings:
    def sha(self, **changes: Any) -> str:
        return settings_sha256(settings(make_matrix(**changes), CELL))

    def test_names_do_not_count_but_what_they_stand_for_does(self) -> None:
        same = Variant(name="compile", execution="compile")
        other = Variant(name="compile", execution="compile", compile=CompileOptions(mode="max-autotune"))
        assert self.sha(variants=(same,)) == self.sha()
        assert self.sha(variants=(other,)) != self.sha()
        renamed = settings(make_matrix(variants=(replace(same, name="mine"),)), make_cell(variant="mine"))
        assert settings_sha256(renamed) == self.sha()

    def test_defaults_are_filled_in(self) -> None:
        said = ModelEntry(name="mlp", model="mlp", optimizer="sgd", lr=0.01)
        assert self.sha(models=(said,)) == self.sha()
        assert self.sha(models=(replace(said, lr=0.1),)) != self.sha()

    def test_threads_have_a_field_of_their_own(self) -> None:
        assert self.sha(variants=(replace(BUILTIN_VARIANTS["compile"], threads=2),)) == self.sha()

    def test_every_setting_of_a_variant_is_in_it(self) -> None:
        names = {field.name for field in fields(Variant)} - {"name", "threads", "compile"}
        names |= {f"compile.{field.name}" for field in fields(CompileOptions)}
        assert set(settings(make_matrix(), CELL)) == names | {"model", "optimizer", "lr"}
