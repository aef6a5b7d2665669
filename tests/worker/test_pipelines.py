"""One order for every pipeline, and the same images from each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import product

import pytest
import torch
from worker_kit import TEST, TRAIN, make_spec

from mnist_bench.models import training_of
from mnist_bench.records import DataSet
from mnist_bench.worker import pipelines
from mnist_bench.worker.pipelines import Batch, Pipeline, epoch_order

CPU = torch.device("cpu")
PIPELINES = ("resident", "tensors", "torchvision", "tutorial")
# Published runs are compared by their order: it must not change with a release of torch or of this program.
GOLDEN = "410c7113"


def build(data: DataSet, **changes: object) -> Pipeline:
    spec = make_spec(data, **changes)  # type: ignore[arg-type]
    pipeline = pipelines.open_pipeline(spec, training_of(spec.model, spec.recipe), CPU)
    pipeline.transfer()
    return pipeline


def gather(batches: Iterable[Batch]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    images, labels = zip(*batches, strict=True)
    sizes = [len(part) for part in labels]
    return torch.cat([part.reshape(len(part), -1) for part in images]), torch.cat(labels), sizes


# ── order ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_order_is_a_permutation() -> None:
    order = epoch_order(0, 0, 60_000)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(60_000))


def test_orders_differ_by_seed_and_epoch_and_come_again() -> None:
    orders = {pair: tuple(epoch_order(*pair, 500).tolist()) for pair in product((0, 1, 2**32 - 1), (-1, 0, 1, 11))}
    assert len(set(orders.values())) == len(orders)
    assert orders[1, 0] == tuple(epoch_order(1, 0, 500).tolist())
    assert orders[1, 11] != tuple(epoch_order(11, 1, 500).tolist())


def test_an_order_does_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    epoch_order(3, 4, 1000)
    assert torch.equal(before, torch.get_rng_state())


def test_the_order_is_the_one_of_every_release() -> None:
    first = epoch_order(0, 0, 60_000)[:16].numpy().tobytes()
    assert hashlib.sha256(first).hexdigest()[:8] == GOLDEN


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
@pytest.mark.parametrize("recipe", ["standard", "tutorial"])
@pytest.mark.parametrize("pipeline", PIPELINES[1:])
def test_all_pipelines_give_the_same_images(pipeline: str, recipe: str, model: str, tiny: DataSet) -> None:
    reference = build(tiny, target=model, recipe=recipe)
    other = build(tiny, target=model, recipe=recipe, pipeline=pipeline)
    assert (other.train_images, other.test_images) == (reference.train_images, reference.test_images)
    order = epoch_order(0, 0, TRAIN)
    for ours, theirs in (
        (reference.train_batches(order), other.train_batches(order)),
        (reference.test_batches(), other.test_batches()),
    ):
        images, labels, sizes = gather(ours)
        other_images, other_labels, other_sizes = gather(theirs)
        assert torch.equal(labels, other_labels)
        assert sizes == other_sizes
        assert torch.allclose(images, other_images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_shapes_and_types(pipeline: str, tiny: DataSet) -> None:
    images, labels = next(iter(build(tiny, target="lenet5", pipeline=pipeline).train_batches(torch.arange(TRAIN))))
    assert images.shape == (100, 1, 28, 28)
    assert (images.dtype, labels.dtype, labels.shape) == (torch.float32, torch.int64, (100,))


def test_the_tutorials_mlp_reads_vectors(tiny: DataSet) -> None:
    images, _ = next(iter(build(tiny, target="mlp", pipeline="tutorial").train_batches(torch.arange(TRAIN))))
    assert images.shape == (100, 784)


def test_the_tutorials_mlp_reads_labels_that_are_tensors(tiny: DataSet) -> None:
    """As in its ``list(zip(X, y))``: collating 100 tensors costs more than collating 100 numbers."""
    pairs = build(tiny, target="mlp", pipeline="tutorial")._train.dataset  # type: ignore[attr-defined]
    vector, label = pairs[0]
    assert vector.shape == (784,)
    assert (label.dtype, label.shape) == (torch.int64, ())


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_image_once_and_the_ragged_tail_too(pipeline: str, tiny: DataSet) -> None:
    built = build(tiny, target="lenet5", pipeline=pipeline, batch_size=64)
    images, _, sizes = gather(built.train_batches(epoch_order(1, 0, TRAIN)))
    assert sizes == [64] * (TRAIN // 64) + [TRAIN % 64]
    assert len(images.unique(dim=0)) == TRAIN == built.train_images  # no two images of the tiny set are alike
    assert gather(built.test_batches())[2] == [1000]


def test_inputs_are_normalised_as_the_recipe_says(tiny: DataSet) -> None:
    standard, _, _ = gather(build(tiny, target="lenet5").train_batches(torch.arange(TRAIN)))
    pixels, _, _ = gather(build(tiny, target="mlp", recipe="tutorial").train_batches(torch.arange(TRAIN)))
    assert 0.0 <= float(pixels.min()) <= float(pixels.max()) <= 1.0
    assert torch.allclose(standard, (pixels - 0.1307) / 0.3081, atol=1e-5)
    shrunk, _, _ = gather(build(tiny, target="cnn", recipe="tutorial").train_batches(torch.arange(TRAIN)))
    assert torch.allclose(shrunk, pixels / 128, atol=1e-8)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_tutorial_recipe_scores_the_training_images(pipeline: str, tiny: DataSet) -> None:
    assert build(tiny, recipe="tutorial", pipeline=pipeline).test_images == TRAIN
    assert build(tiny, recipe="standard", pipeline=pipeline).test_images == TEST


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_no_pipeline_draws_from_the_global_generator(pipeline: str, tiny: DataSet) -> None:
    built = build(tiny, pipeline=pipeline)
    before = torch.get_rng_state()
    for _ in built.train_batches(epoch_order(0, 0, TRAIN)):
        pass
    for _ in built.test_batches():
        pass
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")  # on one core
def test_loader_processes_give_the_same_and_draw_nothing(tiny: DataSet) -> None:
    alone = build(tiny, target="lenet5", pipeline="torchvision")
    helped = build(tiny, target="lenet5", pipeline="torchvision", workers=2)
    before = torch.get_rng_state()
    for epoch in (0, 1):  # the processes live on from epoch to epoch, the order does not
        order = epoch_order(0, epoch, TRAIN)
        if epoch == 0:
            next(stream := helped.train_batches(epoch_order(9, 9, TRAIN)))  # warm-up stops in the middle
            stream.close()  # type: ignore[attr-defined]
        images, labels, sizes = gather(helped.train_batches(order))
        expected_images, expected_labels, expected_sizes = gather(alone.train_batches(order))
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)
        assert sizes == expected_sizes
    assert torch.equal(before, torch.get_rng_state())
