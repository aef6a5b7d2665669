"""Extra work that changes no number, that no compiler leaves out, and whose time is measured by real workers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from record_factory import make_cell
from selftest_kit import MATRIX

from mnist_bench.data.mnist import proven
from mnist_bench.data.synthetic import write_set
from mnist_bench.errors import WorkerError
from mnist_bench.group import Finding
from mnist_bench.interrupts import Interrupts
from mnist_bench.machine import forecast
from mnist_bench.records import BUILTIN_VARIANTS, CELL_VARIABLE, DataSet, Failure, Group, ModelEntry, Skip
from mnist_bench.selftest import sessions
from mnist_bench.selftest.conduct import measurable
from mnist_bench.selftest.injected import Laden, build
from mnist_bench.selftest.instruments import VARIABLE
from mnist_bench.selftest.labels import spoil
from mnist_bench.selftest.sessions import Timer, Workshop, train
from mnist_bench.worker.building import build_model

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
    monkeypatch.setenv(VARIABLE, json.dumps({"mlp/cpu/b100/eager": ["mlp", 7], "cnn/cpu/b100/eager": ["cnn", 0]}))
    monkeypatch.setenv(CELL_VARIABLE, "mlp/cpu/b100/eager@B")
    laden = build()
    assert isinstance(laden, Laden)
    assert laden.work.shape == (7, 64)
    monkeypatch.setenv(CELL_VARIABLE, "cnn/cpu/b100/eager@B")
    assert type(build()) is type(build_model(ModelEntry(name="cnn", model="cnn")))


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    root = tmp_path / "set"
    write_set(root, seed=5, sizes=(3000, 1000))
    sha256 = proven("synthetic", root, None).sha256
    with Interrupts() as interrupts:
        yield Workshop(
            matrix=replace(
                MATRIX, epochs=1, variants=(replace(BUILTIN_VARIANTS["eager"], threads=1),)
            ),  # busy machines
            data=DataSet(name="synthetic", root=str(root), sha256=sha256),
            folder=tmp_path,
            plugin_path=str(tmp_path),
            allow_plugins=False,
            environ={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
            interrupts=interrupts,
        )


def test_real_workers_take_longer_with_more_work(workshop: Workshop) -> None:
    timer = Timer(workshop, make_cell("mlp"), session_s=0.5)
    # About twice a step on the machine that the guess was made for; a tenth of it is enough to be seen.
    ((found,),) = timer((5000,), 1)
    assert math.exp(found) > 1.1


def test_from_wrong_labels_a_real_worker_learns_nothing(workshop: Workshop) -> None:
    cell = make_cell("mlp", batch_size=10)
    spoilt = spoil(workshop.data, workshop.folder / "spoilt", 1.0, seed=0)
    assert train(replace(workshop, data=spoilt.data), cell, 0) < 0.4  # with the right ones above 0.6


def test_a_cell_that_is_not_to_be_had_is_left_out_and_said(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_group(group: Group, **settings: object) -> Iterator[Finding]:
        yield Finding(spec=group.specs[0], outcome=Skip(reason="no such device here"))

    monkeypatch.setattr(sessions, "run_group", run_group)
    said: list[str] = []
    assert measurable(workshop, [make_cell("mlp", device="xpu")], said.append) == ()
    assert said == ["left out: mlp/xpu/b100/eager: no such device here"]


def test_a_worker_that_fails_ends_it(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_group(group: Group, **settings: object) -> Iterator[Finding]:
        yield Finding(spec=group.specs[0], outcome=Failure(kind="oom", reason="out of memory"))

    monkeypatch.setattr(sessions, "run_group", run_group)
    with pytest.raises(WorkerError, match="mlp/cpu/b100/eager: out of memory"):
        measurable(workshop, [make_cell("mlp")], print)
    with pytest.raises(WorkerError, match="out of memory"):
        train(workshop, make_cell("mlp"), 0)
