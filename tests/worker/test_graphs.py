"""Captured steps, on a stand-in whose work is recorded; the same on a GPU, where there is one."""

import random
from typing import Any

import pytest
import torch
from queued import Gpu
from worker_kit import TRAIN, carry_out, compiles, make_spec, prepare

from mnist_bench.catalogue import training_of
from mnist_bench.errors import TrialError
from mnist_bench.records import CompileOptions, ModelEntry
from mnist_bench.worker import trial as trials
from mnist_bench.worker.graphs import Graph
from mnist_bench.worker.pipelines import Resident, epoch_order
from mnist_bench.worker.process import Relocator

pytestmark = [pytest.mark.usefixtures("hasty"), compiles]

GRAPH = {"execution": "cuda_graph", "device": "cuda"}
AOT = {"execution": "compile_cuda_graph", "compile": CompileOptions(backend="aot_eager")}
BEGIN = ["aside waits for main", "on aside", "main waits for aside", "record"]
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")


@pytest.fixture
def gpu(monkeypatch):
    device = Gpu()
    monkeypatch.setattr(trials, "open_device", lambda name: device if name == "cuda" else Gpu())
    return device


@pytest.mark.parametrize("blocks", [0, 7])
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("cnn", {}),  # dropout: off in the trace, and drawn as in eager afterwards
        ("mlp", {}),
        ("mlp", {"batch_size": 175}),  # nothing is left for outside the graph
        ("lenet5", {"optimizer": "adamw", "precision": "fp16"}),
        ("lenet5", {"precision": "bf16-weights"}),
        ("cnn", AOT),
    ],
)
def test_a_captured_step_trains_as_eager_does(model, changes, blocks, tiniest, gpu):
    """To the last bit: what was done ahead of a recording is undone, weights and random state; a session, whose blocks
    move the tensors, leaves no trace."""
    plain = {**changes, "execution": "compile" if "compile" in changes else "eager"}
    eager = carry_out(make_spec(tiniest, model, **plain))
    graph = carry_out(make_spec(tiniest, model, **{**GRAPH, **changes}), blocks)
    assert graph.ready.loss_trace == eager.ready.loss_trace
    assert len({*graph.ready.loss_trace}) > 1
    assert graph.same[1:] == eager.same[1:]  # the predictions, the order
    assert graph.trained.loss == pytest.approx(eager.trained.loss, rel=1e-6)
    assert graph.ready.class_ == eager.ready.class_
    assert (graph.ready.compile_s is None) == ("compile" not in changes)


@pytest.mark.cuda
@NO_GPU
@pytest.mark.parametrize("settings", [GRAPH, {**GRAPH, **AOT}, {**GRAPH, "precision": "fp16"}])
@pytest.mark.parametrize("model", ["cnn", "mlp", "lenet5"])
def test_a_captured_step_on_a_gpu(model, settings, tiny):
    eager = prepare(make_spec(tiny, model, **{**settings, "execution": "eager", "compile": CompileOptions()}))[1]
    trial, ready = prepare(make_spec(tiny, model, **settings))
    assert ready.loss_trace == pytest.approx(eager.loss_trace, rel=1e-3)
    assert trial.block(7).steps % trial._program.steps == 0
    trial.end_session()
    assert trial.train_epoch(0).samples == TRAIN


def test_when_it_is_recorded(tiniest, gpu):
    """At first, for the trace without dropout, after it, and in a session as often as its tensors move."""
    trial, _ = prepare(make_spec(tiniest, "mlp", **GRAPH))
    assert gpu.log.count("record") == 3
    assert gpu.log[:4] == BEGIN
    for number in range(trials.RECAPTURE_BLOCKS + 2):
        trial.block(number)
    assert gpu.log.count("record") == 3 + 2
    before = gpu.log.count("replay")
    trial.end_session()
    assert trial.train_epoch(0).samples == 350
    assert gpu.log.count("replay") == before + 1  # three steps; the ragged one outside
    assert gpu.log.count("record") == 3 + 2


@pytest.mark.parametrize("precision", ["fp32", "bf16-weights"])
def test_its_extras_are_those_of_the_model(precision, tiniest, gpu):
    """Whose images are no indices, and of its weights' type."""
    spec = make_spec(tiniest, "mlp", extras=True, precision=precision, **GRAPH)
    trial, _ = prepare(spec)
    finished = trial.finish()
    assert finished.missed == ()
    assert finished.extras.sample_flops == 2 * 784 * (784 + 10) * 3 - 2 * 784 * 784  # no gradient for the images


@pytest.mark.parametrize(
    ("images", "batch_size", "steps"), [(60_000, 100, 10), (60_000, 64, 1), (60_000, 4000, 5), (350, 100, 3), (9, 9, 1)]
)
def test_as_many_steps_a_replay_as_leave_no_whole_batch_over(images, batch_size, steps, gpu):
    assert toy(gpu, images, batch_size).steps == steps
    order = epoch_order(0, 0, images)
    pairs = [*toy(gpu, images, batch_size).train_batches(order)]
    assert torch.equal(torch.cat([indices for indices, _ in pairs]), order)
    tail = [images % batch_size] if images % batch_size else []
    assert [len(indices) for indices, _ in pairs] == [steps * batch_size] * (images // batch_size // steps) + tail


def toy(gpu: Gpu, images: int, batch_size: int, calls: list[int] | None = None, step: Any = None) -> Graph:
    """A graph over images that say their own number; its loss is the mean of these."""

    class Read:
        data = torch.arange(images, dtype=torch.int64).remainder(250).to(torch.uint8).view(-1, 1, 1)
        targets = torch.arange(images)

    def mean(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if calls is not None:
            calls.append(len(labels))
        return labels.double().mean().float() + 0 * pixels.sum()

    training = training_of(ModelEntry(name="mlp", model="mlp"), "standard")
    resident = Resident(Read, Read, training, batch_size, torch.device("cpu"))
    resident.transfer()
    return Graph(step or mean, resident, gpu, batch_size)


def test_a_replay_is_without_python_and_of_the_images_it_is_given(gpu):
    calls: list[int] = []
    graph = toy(gpu, 60, 10, calls)
    batches = [*graph.train_batches(torch.arange(60).flip(0))]
    assert graph.steps == 6
    first = graph.step(*batches[0])
    assert calls == [10] * (3 + 6)  # ahead of the recording, and in it
    assert first.tolist() == [54.5 - 10 * number for number in range(6)]
    again = graph.step(torch.arange(60), torch.arange(60))
    assert again.tolist() == [4.5 + 10 * number for number in range(6)]
    assert first.tolist() == [54.5 - 10 * number for number in range(6)]  # a replay leaves the losses before it alone
    assert calls == [10] * 9
    assert graph.step(torch.tensor([7, 9]), torch.tensor([7, 9])) == 8  # outside the graph
    assert calls == [10] * 9 + [2]


def test_what_has_moved_is_found_by_a_new_recording_alone(gpu):
    graph = toy(gpu, 20, 10)
    assert graph.step(torch.arange(20), torch.arange(20)).tolist() == [4.5, 14.5]
    kept = graph._pipeline._labels.data
    graph.relocate(Relocator(), random.Random(1))
    kept.zero_()  # as if freed and used again
    assert graph.step(torch.arange(20), torch.arange(20)).tolist() == [0, 0]
    graph.capture()
    assert graph.step(torch.arange(20), torch.arange(20)).tolist() == [4.5, 14.5]


def test_a_step_that_waits_for_the_device_says_so(gpu):
    words = r"cannot be captured \(operation not permitted.*\): nothing in it may wait for the device"
    waiting = toy(gpu, 20, 10, step=lambda pixels, labels: pixels.sum() * labels.sum().item())
    with pytest.raises(TrialError, match=words):
        waiting.step(torch.arange(20), torch.arange(20))

    def full(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if gpu.log[-1] == "record":
            raise torch.OutOfMemoryError("out of memory")
        return pixels.sum()

    with pytest.raises(torch.OutOfMemoryError):
        toy(gpu, 20, 10, step=full).step(torch.arange(20), torch.arange(20))
