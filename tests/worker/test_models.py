"""The three models, and plug-ins: what is taken, what is refused and in which words."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from worker_kit import LINEAR, write_plugin

from mnist_bench import models
from mnist_bench.models import ModelError
from mnist_bench.records import BUILTIN_MODELS, ModelEntry


def entry(target: str) -> ModelEntry:
    return ModelEntry(name=target.replace(":", "."), model=target)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The matrix file's folder, on the path as the worker puts it there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize(("name", "parameters"), [("mlp", 623_290), ("cnn", 934_798), ("lenet5", 61_706)])
def test_the_reference_models(name: str, parameters: int) -> None:
    model = models.build(entry(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    for count in (1, 7):
        logits = model(torch.rand(count, 1, 28, 28))
        assert logits.shape == (count, 10)
        assert logits.dtype == torch.float32


def test_every_builtin_name_has_a_builder() -> None:
    assert tuple(sorted(models.BUILDERS)) == BUILTIN_MODELS


def test_the_mlp_takes_vectors_too() -> None:
    assert models.build(entry("mlp"))(torch.rand(3, 784)).shape == (3, 10)  # the tutorial's own pipeline gives them


def test_the_cnn_pools_with_stride_1() -> None:
    layers = list(models.build(entry("cnn")))
    pooled = nn.Sequential(*layers[:3])(torch.rand(1, 1, 28, 28))
    assert pooled.shape == (1, 10, 27, 27)
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.2]


def test_a_plugin_beside_the_matrix_file(plugins: Path) -> None:
    write_plugin(plugins, "plain_plugin", LINEAR)
    model = models.build(entry("plain_plugin:build"))
    assert sum(parameter.numel() for parameter in model.parameters()) == 7850


def test_a_plugin_in_a_package(plugins: Path) -> None:
    (plugins / "plugged").mkdir()
    (plugins / "plugged" / "__init__.py").touch()
    write_plugin(plugins / "plugged", "inner", LINEAR)
    assert isinstance(models.build(entry("plugged.inner:build")), nn.Module)


def test_the_proof_of_shape_leaves_no_trace(plugins: Path) -> None:
    write_plugin(
        plugins,
        "noisy_plugin",
        """
        import torch
        from torch import nn

        class Noisy(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm = nn.BatchNorm1d(784)
                self.out = nn.Linear(784, 10)

            def forward(self, images):
                return self.out(self.norm(images.flatten(1) + torch.randn(1)))

        def build():
            return Noisy().train()
        """,
    )
    torch.manual_seed(3)
    model = models.build(entry("noisy_plugin:build"))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    nn.Linear(784, 10)
    assert torch.equal(drawn, torch.rand(1))
    assert model.training
    assert int(model.norm.num_batches_tracked) == 0  # type: ignore[union-attr,arg-type]


REFUSED = {
    "def build(): return 5": "refused:build() returned a int, not a torch.nn.Module",
    "build = 5": "refused:build is a int, not a function",
    "def other(): ...": "refused:build: module 'refused' has no 'build'",
    "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 9))": (
        "refused:build: from an input (2, 1, 28, 28) came (2, 9), not logits (2, 10)"
    ),
    "from torch import nn\nclass M(nn.Module):\n    def forward(self, images): return [1]\nbuild = M": (
        "refused:build: from an input (2, 1, 28, 28) came list, not logits (2, 10)"
    ),
}


@pytest.mark.parametrize("code", REFUSED, ids=range(len(REFUSED)))
def test_refused_plugins(code: str, plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "refused", raising=False)
    write_plugin(plugins, "refused", code)
    with pytest.raises(ModelError) as caught:
        models.build(entry("refused:build"))
    assert str(caught.value) == REFUSED[code]


@pytest.mark.parametrize("target", ["nowhere_at_all:build", "nowhere_at_all.inner:build"])
def test_a_missing_module(target: str, plugins: Path) -> None:
    module = target.partition(":")[0]
    with pytest.raises(
        ModelError, match=f"{target}: no module '{module}' beside the matrix file or among the packages"
    ):
        models.build(entry(target))


def test_what_a_plugin_itself_does_wrong_is_its_own_error(plugins: Path) -> None:
    write_plugin(plugins, "imports_nothing", "import a_package_that_is_not_there")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        models.build(entry("imports_nothing:build"))
    write_plugin(plugins, "misspells", "import torch\ntorch.no_such_thing\ndef build(): ...")
    with pytest.raises(AttributeError, match="no_such_thing"):
        models.build(entry("misspells:build"))


def test_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("tiny-net", "mnist_bench.models.mlp:build", models.ENTRY_POINT_GROUP)

    def entry_points(group: str) -> importlib.metadata.EntryPoints:
        assert group == "mnist_bench.models"
        return importlib.metadata.EntryPoints([point])

    monkeypatch.setattr(models, "entry_points", entry_points)
    assert models.build(entry("tiny-net"))(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    with pytest.raises(ModelError, match=r"no entry point 'tinynet' in the group mnist_bench\.models"):
        models.build(entry("tinynet"))
