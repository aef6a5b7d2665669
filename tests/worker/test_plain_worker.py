"""bench/plain_worker.py: its loop trains on, and scores, the images that the harness has."""

from __future__ import annotations

import pytest
import torch
from worker_kit import TEST, TRAIN, make_spec

from bench import plain_worker
from mnist_bench.models import training_of
from mnist_bench.records import DataSet, Recipe
from mnist_bench.worker import pipelines
from mnist_bench.worker.pipelines import epoch_order


@pytest.mark.parametrize(("recipe", "scored"), [("standard", TEST), ("tutorial", TRAIN)])
def test_both_sets_are_those_of_the_harness(recipe: Recipe, scored: int, tiny: DataSet) -> None:
    spec = make_spec(tiny, recipe=recipe)
    loop = plain_worker.build(spec)
    pipeline = pipelines.open_pipeline(spec, training_of(spec.model, recipe), torch.device("cpu"))
    for images, batches in (
        (loop.images, pipeline.train_batches(torch.arange(TRAIN))),
        (loop.test_images, pipeline.test_batches()),
    ):
        normalised = images.to(torch.float32).sub_(loop.shift).mul_(loop.scale)
        assert torch.equal(normalised, torch.cat([batch for batch, _ in batches]))
    assert len(loop.test_images) == scored
    order = epoch_order(spec.seed, -1, TRAIN)
    assert torch.equal(loop.labels[order], torch.cat([labels for _, labels in pipeline.train_batches(order)]))
