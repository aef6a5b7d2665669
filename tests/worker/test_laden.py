"""Extra work that changes no number, and that no compiler leaves out."""

import json

import torch
from torch import nn
from worker_kit import compiles

from mnist_bench.catalogue import SELFTEST
from mnist_bench.records import CELL_VARIABLE, ModelEntry
from mnist_bench.running.protocol import LOAD_VARIABLE
from mnist_bench.worker.models import Laden, build_model

IMAGES = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def test_logits_and_gradients_stay_to_the_last_bit():
    models = []
    for rows in (None, 50):
        torch.manual_seed(0)
        bare = build_model(ModelEntry(name="lenet5", model="lenet5"))
        models.append(bare if rows is None else Laden(bare, rows))
    outputs = [model(IMAGES) for model in models]
    assert torch.equal(*outputs)
    for output in outputs:
        nn.functional.cross_entropy(output, torch.arange(8)).backward()
    plain, laden = models
    pairs = zip(plain.parameters(), laden.parameters(), strict=True)
    assert all(torch.equal(one.grad, other.grad) for one, other in pairs)
    assert plain.state_dict().keys() == {name.removeprefix("model.") for name in laden.state_dict()}


@compiles
def test_the_compiler_keeps_the_work():
    """Its values reach what inductor computes: with a factor that is not 0 they change the logits."""
    model = Laden(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), rows=3)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True)
        plain = compiled(IMAGES)
        assert torch.equal(plain, compiled(IMAGES))
        model.nothing.fill_(1.0)
        torch.testing.assert_close(compiled(IMAGES), plain + 3 * 64)


def test_the_environment_decides_what_is_built(monkeypatch):
    monkeypatch.setenv(LOAD_VARIABLE, json.dumps({"mlp/cpu/b100/eager": ["mlp", 7], "cnn/cpu/b100/eager": ["cnn", 0]}))
    for cell, work in (("mlp/cpu/b100/eager", (7, 64)), ("cnn/cpu/b100/eager", None)):
        monkeypatch.setenv(CELL_VARIABLE, cell)
        built = build_model(ModelEntry(name="m", model=SELFTEST))
        assert (built.work.shape if isinstance(built, Laden) else None) == work
