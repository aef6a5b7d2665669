"""The built-in models, their recipes, and plug-ins: what is taken, what is refused and in which words."""

import importlib
import importlib.metadata
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from worker_kit import LINEAR, write_plugin

from mnist_bench.catalogue import MODELS, training_of
from mnist_bench.errors import TrialError
from mnist_bench.records import ModelEntry
from mnist_bench.worker import models


def build(model: str, folder: Path | None = None) -> nn.Module:
    entry = ModelEntry(name=model.replace(":", "."), model=model)
    return models.build_model(entry, allow_plugins=folder is not None, plugin_path=folder and str(folder))


@pytest.mark.parametrize("name", MODELS)
def test_the_catalogues_facts_are_the_models(name):
    model, facts = build(name), MODELS[name]
    assert sum(parameter.numel() for parameter in model.parameters()) == facts.parameters
    logits = model(torch.rand(7, 1, 28, 28))
    assert (logits.shape, logits.dtype) == ((7, 10), torch.float32)
    with FlopCounterMode(display=False) as counter:
        forward = model(torch.rand(1, 1, 28, 28))
        scored = counter.get_total_flops()
        forward.sum().backward()
    # The catalogue counts the activations too, the counter only products.
    assert (counter.get_total_flops(), scored) == pytest.approx(facts.flops, rel=0.05)


@pytest.mark.parametrize(
    ("model", "given", "optimizer", "lr", "tutorial_std"),
    [
        ("mlp", {}, "sgd", 0.01, 1.0),
        ("mine:build", {}, "adam", 0.001, 128.0),
        ("mlp", {"optimizer": "adamw", "lr": 0.5}, "adamw", 0.5, 1.0),
    ],
)
def test_recipes(model, given, optimizer, lr, tutorial_std):
    entry = ModelEntry(name="m", model=model, **given)
    standard, tutorial = training_of(entry, "standard"), training_of(entry, "tutorial")
    assert (standard.optimizer, standard.lr) == (tutorial.optimizer, tutorial.lr) == (optimizer, lr)
    assert (standard.scored_on_training_images, tutorial.scored_on_training_images) == (False, True)
    assert (standard.mean, standard.std) == (0.1307, 0.3081)
    assert (tutorial.mean, tutorial.std) == (0.0, tutorial_std)


def test_plugins_beside_the_matrix_file_in_a_package_and_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "plugged").mkdir()
    write_plugin(tmp_path / "plugged", "inner", LINEAR)
    write_plugin(tmp_path, "plain_plugin", LINEAR)
    point = importlib.metadata.EntryPoint("tiny-net", "plain_plugin:build", "mnist_bench.models")
    monkeypatch.setattr(models, "entry_points", lambda **wanted: [point] if point.matches(**wanted) else [])
    for name in ("plain_plugin:build", "plugged.inner:build", "tiny-net"):
        assert sum(parameter.numel() for parameter in build(name, tmp_path).parameters()) == 7850


def test_nothing_is_imported_unless_plugins_are_allowed(tmp_path, monkeypatch):
    write_plugin(tmp_path, "evil", f"open({str(tmp_path / 'here')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("evil:build", "an-entry-point", "os:abort"):
        with pytest.raises(TrialError, match=f"{name} is code that is not built in: add --allow-plugins to run it"):
            build(name)
    assert not (tmp_path / "here").exists()


def test_the_proof_of_shape_leaves_no_trace(tmp_path):
    write_plugin(tmp_path, "noisy_plugin", MADE.format("torch.rand(2, 10)"))
    before = torch.get_rng_state()
    assert build("noisy_plugin:build", tmp_path).training
    assert torch.equal(before, torch.get_rng_state())
    write_plugin(tmp_path, "batch_plugin", LINEAR.replace("nn.Linear", "nn.BatchNorm1d(784), nn.Linear"))
    assert not build("batch_plugin:build", tmp_path).state_dict()["1.num_batches_tracked"]


MADE = "import torch\nclass build(torch.nn.Module):\n    def forward(self, images): return {}"
INPUT = "from an input (2, 1, 28, 28) came"
NOT_FOUND = "no module 'nowhere_at_all{}' beside the matrix file or among the packages"
REFUSED = [
    ("refused:build", "def build(): return 5", "refused:build() returned a int, not a torch.nn.Module"),
    ("refused:build", "build = 5", "5 is not a callable object"),
    ("refused:build", "def other(): ...", "module 'refused' has no attribute 'build'"),
    ("refused:build", MADE.format("images[:, 0, 0, :9]"), f"refused:build: {INPUT} (2, 9), not logits (2, 10)"),
    ("refused:build", MADE.format("[1]"), f"refused:build: {INPUT} list, not logits (2, 10)"),
    # What it does wrong itself is its own error.
    ("refused:build", "import a_package_that_is_not_there", "No module named 'a_package_that_is_not_there'"),
    ("refused:build", "import torch\ntorch.no_such_thing", "module 'torch' has no attribute 'no_such_thing'"),
    ("nowhere_at_all:build", "", f"nowhere_at_all:build: {NOT_FOUND.format('')}"),
    ("nowhere_at_all.inner:build", "", f"nowhere_at_all.inner:build: {NOT_FOUND.format('.inner')}"),
    ("tinynet", "", "no entry point 'tinynet' in the group mnist_bench.models: install its package"),
]


@pytest.mark.parametrize(("name", "code", "words"), REFUSED, ids=range(len(REFUSED)))
def test_refused_plugins(name, code, words, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "refused", raising=False)
    importlib.invalidate_caches()
    write_plugin(tmp_path, "refused", code)
    with pytest.raises((TrialError, ModuleNotFoundError, AttributeError, TypeError)) as caught:
        build(name, tmp_path)
    assert str(caught.value) == words
