"""What must be the same for two measurements to be compared."""

from dataclasses import fields, replace
from typing import Any

import pytest
from record_factory import make_cell, make_manifest, make_matrix, make_measurement

from mnist_bench.analysis.keys import FIELDS, Key, differences, key_of, ranked, settings
from mnist_bench.cells import digest
from mnist_bench.records import BUILTIN_VARIANTS, CompileOptions, ModelEntry, Variant

CELL, COMPILE = make_cell(variant="compile"), BUILTIN_VARIANTS["compile"]


def key(**changes: Any) -> Key:
    return replace(key_of(make_manifest(), CELL, make_measurement()), **changes)


def test_key_of_a_cell():
    found = key()
    assert (found.cpu, found.gpu, found.driver, found.threads, found.cores) == ("AMD EPYC", None, None, 2, 2)
    assert (found.torch, found.recipe, found.epochs) == ("2.13.0+cpu", "standard", 2)
    made = make_manifest()
    made = replace(made, environment=replace(made.environment, details={"nvidia_driver": "550.1"}))
    on_gpu = key_of(made, make_cell(device="cuda:1"), make_measurement(device_name="NVIDIA H100"))
    assert (on_gpu.gpu, on_gpu.driver, on_gpu.cpu) == ("NVIDIA H100", "550.1", "AMD EPYC")
    assert key_of(made, CELL, make_measurement()).driver is None
    assert replace(on_gpu, gpu=None, threads=None) == key_of(made, make_cell(device="cuda:1"), None)


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_makes_a_difference(field):
    one = key(driver="550")
    value: Any = {**one.settings, "lr": 9} if field == "settings" else "another"
    (found,) = differences(one, replace(one, **{field: value}))
    assert (found.field, found.b) == (field, "lr 9" if field == "settings" else "another")
    assert differences(replace(one, **{field: value}), one)[0].a == found.b
    assert differences(one, one) == ()


def test_unknown_is_said_so_and_an_unknown_driver_does_not_count():
    assert differences(key(), key(driver="550")) == differences(key(driver="550"), key()) == ()
    assert differences(key(torch=None), key())[0].a == "unknown"


def test_what_matters_most_comes_first_and_each_once():
    found = differences(key(), key(epochs=3, cores=8, cpu="Intel", dataset="synthetic (ffffffffffff)"))
    assert [one.field for one in found] == ["cpu", "cores", "epochs", "dataset"]
    other = replace(found[0], b="z")
    assert ranked([*reversed(found), other, *found]) == (found[0], other, *found[1:])


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"variants": (COMPILE,)}, True),
        ({"variants": (replace(COMPILE, compile=CompileOptions(mode="max-autotune")),)}, False),
        ({"variants": (replace(COMPILE, threads=2),)}, True),  # the key has them
        ({"models": (ModelEntry(name="mlp", model="mlp", optimizer="sgd", lr=0.01),)}, True),  # the recipe's
        ({"models": (ModelEntry(name="mlp", model="mlp", lr=0.1),)}, False),
    ],
)
def test_what_names_stand_for_counts_and_not_the_names(change, same):
    assert (digest(settings(make_matrix(**change), CELL)) == digest(settings(make_matrix(), CELL))) == same
    mine = settings(make_matrix(variants=(replace(COMPILE, name="mine"),)), make_cell(variant="mine"))
    assert digest(mine) == digest(settings(make_matrix(), CELL))


def test_every_setting_counts():
    names = {field.name for field in fields(Variant)} - {"name", "threads", "compile"}
    names |= {f"compile.{field.name}" for field in fields(CompileOptions)}
    assert set(settings(make_matrix(), CELL)) == names | {"model", "optimizer", "lr"}
