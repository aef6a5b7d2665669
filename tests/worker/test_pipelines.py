"""One order for every pipeline, the same images from each of them, and from the plain loop that bench compares with."""

import hashlib
from collections.abc import Iterable
from itertools import product

import pytest
import torch
from worker_kit import TEST, TRAIN, make_spec

from bench import plain_worker
from mnist_bench.catalogue import PIPELINES, load, training_of
from mnist_bench.records import DataSet
from mnist_bench.worker.loop import Batch
from mnist_bench.worker.pipelines import Pipeline, epoch_order

# Published runs are compared by their order: it must not change with a release of torch or of this program.
GOLDEN = "410c7113"
INPUTS = list(product(PIPELINES, ["standard", "tutorial"], ["mlp", "lenet5"]))


def build(data: DataSet, **changes: object) -> Pipeline:
    spec = make_spec(data, **changes)
    make = load(PIPELINES[spec.variant.pipeline])
    pipeline = make(spec, training_of(spec.model, spec.recipe), torch.device("cpu"))
    pipeline.transfer()
    return pipeline


def gather(batches: Iterable[Batch]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    images, labels = zip(*batches, strict=True)
    sizes = [len(part) for part in labels]
    return torch.cat([part.reshape(len(part), -1) for part in images]), torch.cat(labels), sizes


def test_an_order_is_a_permutation_by_seed_and_epoch_alone():
    order = epoch_order(0, 0, 60_000)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(60_000))
    assert hashlib.sha256(order[:16].numpy().tobytes()).hexdigest()[:8] == GOLDEN
    before = torch.get_rng_state()
    pairs = list(product((0, 1, 2**32 - 1), (-1, 0, 1, 11)))
    first, again = ([tuple(epoch_order(*pair, 500).tolist()) for pair in pairs] for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert first == again
    assert len(set(first)) == len(pairs)


@pytest.mark.parametrize(("pipeline", "recipe", "model"), INPUTS)
def test_every_image_once_the_same_in_all_pipelines(pipeline, recipe, model, tiny):
    """The ragged tail too; nothing is drawn from the global generator; the tutorial's MLP reads vectors."""
    built = build(tiny, model=model, recipe=recipe, pipeline=pipeline, batch_size=64)
    assert (built.train_images, built.test_images) == (TRAIN, TRAIN if recipe == "tutorial" else TEST)
    order, before = epoch_order(1, 0, TRAIN), torch.get_rng_state()
    images, labels, sizes = gather(built.train_batches(order))
    scored, scored_labels, scored_sizes = gather(built.test_batches())
    assert torch.equal(before, torch.get_rng_state())
    assert sizes == [64] * (TRAIN // 64) + [TRAIN % 64]
    assert scored_sizes == ([1000, 1000, 300] if recipe == "tutorial" else [1000])
    assert len(images.unique(dim=0)) == TRAIN  # no two images of the tiny set are alike
    batch, digits = next(iter(built.train_batches(order)))
    assert batch.shape == ((64, 784) if (pipeline, model) == ("tutorial", "mlp") else (64, 1, 28, 28))
    assert (batch.dtype, digits.dtype, digits.shape) == (torch.float32, torch.int64, (64,))
    reference = build(tiny, model=model, recipe=recipe, batch_size=64)
    for mine, theirs in zip(
        (images, labels, scored, scored_labels),
        (*gather(reference.train_batches(order))[:2], *gather(reference.test_batches())[:2]),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("recipe", ["standard", "tutorial"])
def test_the_plain_loop_has_the_harness_images(recipe, tiny):
    spec = make_spec(tiny, recipe=recipe)
    loop, pipeline = plain_worker.build(spec), build(tiny, recipe=recipe)
    for images, batches in (
        (loop.images, pipeline.train_batches(torch.arange(TRAIN))),
        (loop.test_images, pipeline.test_batches()),
    ):
        normalised = images.to(torch.float32).sub_(loop.shift).mul_(loop.scale)
        assert torch.equal(normalised, torch.cat([batch for batch, _ in batches]))
    order = epoch_order(spec.seed, -1, TRAIN)
    assert torch.equal(loop.labels[order], torch.cat([labels for _, labels in pipeline.train_batches(order)]))
