"""A data set that is code: what is taken, what is refused and in which words, and that all pipelines see the same."""

from dataclasses import replace

import pytest
import torch
from worker_kit import carry_out, make_spec, write_plugin

from mnist_bench.catalogue import PIPELINES, load, training_of
from mnist_bench.errors import TrialError
from mnist_bench.records import DataSet
from mnist_bench.worker import sets
from mnist_bench.worker.pipelines import epoch_order

FLAT = """
import numpy as np
from torch import nn

def images(count, seed, channels=3):
    dice = np.random.default_rng(seed)
    labels = np.arange(count) % {classes}
    return dice.integers(256, size=(count, channels, 6, 5), dtype=np.uint8), labels

def load():
    return {{"train": images(330, 0), "test": images(1100, 1), "mean": (0.4, 0.5, 0.6), "std": 0.2, **CHANGES}}

def build(*, shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))

CHANGES = {changes}
"""


@pytest.fixture
def plug_in(tmp_path, request):
    """Writes a set of its own name (modules are remembered), and makes specs of it."""
    count = iter(range(9))

    def make(changes="{}", classes=7, **more):
        name = f"set_{abs(hash(request.node.name))}_{next(count)}"
        write_plugin(tmp_path, name, FLAT.format(changes=changes, classes=classes))
        data = DataSet(name=f"{name}:load", root="", sha256="")
        return make_spec(data, f"{name}:build", plugin_path=str(tmp_path), **{"batch_size": 100, **more})

    return make


def known(spec):
    """The spec as the runner gives it to a worker, once the set was described."""
    return replace(spec, data=sets.opened(spec)[0])


@pytest.mark.parametrize("classes", [7, 300])
def test_a_set_is_described_and_trained_on(plug_in, hasty, classes):
    """Also with more classes than a byte holds; evaluation ends in a ragged batch, which is warm when it is timed."""
    spec = known(plug_in(classes=classes))
    about = spec.data
    assert (about.shape, about.classes, about.sizes) == ((3, 6, 5), classes, (330, 1100))
    assert (about.mean, about.std) == ((0.4, 0.5, 0.6), 0.2)
    done = carry_out(spec, blocks=1)
    assert (done.trained.samples, done.scored.samples) == (330, 1100)
    assert done.ready.parameters == 91 * classes


def test_every_pipeline_has_the_same_images(plug_in):
    spec, seen = known(plug_in()), []
    for name in PIPELINES:
        one = make_spec(spec.data, spec.model.model, plugin_path=spec.plugin_path, batch_size=100, pipeline=name)
        pipeline = load(PIPELINES[name])(one, training_of(one.model, "standard", one.data), torch.device("cpu"))
        order = epoch_order(0, 0, 330)
        batches = [*pipeline.train_batches(order), *pipeline.test_batches()]
        seen.append((torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])))
    for images, labels in seen[1:]:
        assert torch.allclose(images, seen[0][0], rtol=0, atol=1e-6)
        assert torch.equal(labels, seen[0][1])
    pixels = torch.from_numpy(sets.opened(spec)[2].data.numpy()) / 255
    wanted = (pixels - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / 0.2
    assert torch.allclose(seen[0][0][330:], wanted, rtol=0, atol=1e-5)


IMAGES = "images are float64 (2, 3, 6, 5): make them uint8 (N, C, H, W), 0 to 255"
REFUSED = [
    ("{'mean': 'bright'}", "mean: should be a number from 0 to 1 (pixels are scaled to that), or 3 of them"),
    ("{'mean': 127.0}", "mean: should be a number from 0 to 1"),
    ("{'std': (0.2, 0.2)}", "std: should be a number from 0 to 1"),
    ("{'std': 0}", "std is 0: images are divided by it"),
    ("{'std': float('nan')}", "std: should be a number from 0 to 1"),
    ("{'names': []}", "returned the keys train, test, mean, std, names, not {'train': (images, labels)"),
    ("{'train': np.zeros(3)}", "train: should be (images, labels), two numpy arrays or torch tensors"),
    ("{'test': (images(2, 0)[0] / 255, np.zeros(2, int))}", IMAGES),
    ("{'train': (images(2, 0)[0][0], np.zeros(2, int))}", "images are uint8 (3, 6, 5): make them"),
    ("{'train': images(0, 0)}", "images are uint8 (0, 3, 6, 5): make them"),
    (
        "{'train': (images(2, 0)[0], np.zeros(3, int))}",
        "labels are int64 (3,): make them whole numbers from 0, one for",
    ),
    ("{'train': (images(2, 0)[0], -np.ones(2, int))}", "labels are int64 (2,): make them whole numbers from 0"),
    ("{'train': (images(2, 0)[0], np.zeros(2))}", "labels are float64 (2,)"),
    ("{'test': images(5, 0, channels=1)}", "training images are 3 x 6 x 5, test images 1 x 6 x 5: make them alike"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_data_set_is_refused(plug_in, changes, words):
    with pytest.raises(TrialError) as caught:
        sets.opened(plug_in(changes))
    assert words in str(caught.value)


def test_nothing_is_called_unless_plug_ins_are_allowed_and_another_result_is_another_set(plug_in):
    refused = plug_in("open('here', 'w')", allow_plugins=False)
    with pytest.raises(TrialError, match=r"load is code that is not built in: add --allow-plugins to run it"):
        sets.opened(refused)
    spec, other = known(plug_in()), known(plug_in("{'std': 0.3}"))
    assert spec.data.sha256 != other.data.sha256
    with pytest.raises(TrialError, match=r"another data set than at the start .*seed what is random"):
        sets.verified(replace(spec, data=replace(other.data, name=spec.data.name)))


def test_tensors_are_taken_as_arrays_are(plug_in):
    tensors = "{'train': tuple(map(__import__('torch').as_tensor, images(330, 0)))}"
    assert known(plug_in(tensors)).data.sha256 == known(plug_in()).data.sha256
