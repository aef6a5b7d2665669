"""Extra work that changes no number, and that no compiler leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mnist_bench.machine import forecast
from mnist_bench.records import CELL_VARIABLE, ModelEntry
from mnist_bench.run.protocol import LOAD_VARIABLE
from mnist_bench.worker.models import Laden, build_model, selftest

needs_compiler = pytest.mark.skipif(
    forecast.this_host().find_program(forecast.compiler(forecast.this_host())) is None, reason="needs a C++ compiler"
)
# torch's compiler meets deprecated parts of torch as it is imported and used.
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


def lenet5() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(ModelEntry(name="lenet5", model="lenet5"))


def images(count: int = 8) -> torch.Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def test_logits_and_gradients_stay_to_the_last_bit() -> None:
    plain, laden = lenet5(), Laden(lenet5(), rows=50)
    outputs = [model(images()) for model in (plain, laden)]
    assert torch.equal(*outputs)
    for output in outputs:
        torch.nn.functional.cross_entropy(output, torch.arange(8)).backward()
    pairs = zip(plain.parameters(), laden.parameters(), strict=True)
    assert all(torch.equal(one.grad, other.grad) for one, other in pairs)  # type: ignore[arg-type]
    assert plain.state_dict().keys() == {name.removeprefix("model.") for name in laden.state_dict()}


@compiles
def test_the_compiled_graph_keeps_the_work() -> None:
    from torch._dynamo.backends.common import aot_autograd

    kept: list[int] = []

    def count(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        kept.append(sum(node.target == torch.ops.aten.mm.default for node in graph.graph.nodes))
        return graph.forward

    model = Laden(torch.nn.Sequential(torch.nn.Flatten()), rows=50)
    compiled = torch.compile(model, backend=aot_autograd(fw_compiler=count), fullgraph=True)
    assert torch.equal(compiled(images()), images().flatten(1))
    assert kept == [4]
    torch._dynamo.reset()


@compiles
@needs_compiler
def test_the_compiler_that_users_have_keeps_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work's values reach what inductor computes: with a factor that is not 0 they change the logits."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = Laden(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)), rows=3)
    with torch._inductor.config.patch(compile_threads=1), torch.no_grad():  # type: ignore[no-untyped-call]
        compiled = torch.compile(model, fullgraph=True)
        plain = compiled(images())
        assert torch.equal(plain, compiled(images()))
        model.nothing.fill_(1.0)
        shifted = compiled(images())
    torch.testing.assert_close(shifted, plain + 3 * 64)
    torch._dynamo.reset()


def test_the_environment_decides_what_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOAD_VARIABLE, json.dumps({"mlp/cpu/b100/eager": ["mlp", 7], "cnn/cpu/b100/eager": ["cnn", 0]}))
    monkeypatch.setenv(CELL_VARIABLE, "mlp/cpu/b100/eager@B")
    laden = selftest()
    assert isinstance(laden, Laden)
    assert laden.work.shape == (7, 64)
    monkeypatch.setenv(CELL_VARIABLE, "cnn/cpu/b100/eager@B")
    assert type(selftest()) is type(build_model(ModelEntry(name="cnn", model="cnn")))
