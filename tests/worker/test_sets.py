"""Data sets that are code, and other files than MNIST's: what is taken, what is refused, and the way through it all."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from check_kit import Repo, clean_environ
from group_kit import FakeWorker
from worker_kit import carry_out, make_spec, new_trial, prepare, write_plugin

from mnist_bench.catalogue import PIPELINES, SETS, load, training_of
from mnist_bench.cli import main
from mnist_bench.data.mnist import inspect
from mnist_bench.errors import TrialError
from mnist_bench.gate import conduct, outputs, plan, samples, sides
from mnist_bench.records import MNIST, encode
from mnist_bench.running import runner
from mnist_bench.running.protocol import decode_reply
from mnist_bench.table import plain
from mnist_bench.worker import sets
from mnist_bench.worker.loop import clock
from mnist_bench.worker.server import answer

PLUG_IN = """
import numpy as np, torch
from torch import nn

def images(count, shape={shape}, classes={classes}):
    labels = np.arange(count) % classes
    pixels = np.zeros((count, *shape), np.uint8)
    pixels[np.arange(count), labels % shape[0]] = (30 * labels[:, None, None] + np.arange(shape[2])) % 256
    return pixels, labels

def load():
    return {{"train": images(500), "test": images(1100), "mean": (0.4, 0.5, 0.6), "std": 0.2, **{changes}}}

def build(*, shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""
MATRIX = {"version": 1, "epochs": 1, "seeds": 1, "devices": ["cpu"], "reference": "one"}
MATRIX |= {"variants": [{"name": "one", "threads": 1}, {"name": "other", "threads": 1, "pipeline": "tensors"}]}
MATRIX |= {"timing": {"budget_seconds": 0.1}, "expect": [{"min_accuracy": 0.2}]}
CHECK = "check m.yaml --against HEAD --allow-plugins --offline --no-wait --filter variant=one"


def plug_in_of(shape=(3, 32, 32), classes=7, changes="{}"):
    return PLUG_IN.format(shape=shape, classes=classes, changes=changes)


@pytest.fixture
def plug_in(tmp_path, request):
    """Writes a set of its own name (modules are remembered), and makes specs of it."""
    name = f"set_{abs(hash(request.node.name))}"

    def make(changes="{}", classes=7, **more):
        write_plugin(tmp_path, name, plug_in_of((3, 6, 5), classes, changes))
        data = replace(MNIST, name=f"{name}:load")
        return make_spec(data, f"{name}:build", **{"plugin_path": str(tmp_path), "batch_size": 100, **more})

    return make


def known(spec):
    """The spec as the runner gives it to a worker, once the set was described."""
    return replace(spec, data=sets.opened(spec)[0])


def test_more_classes_than_a_byte_holds_and_a_ragged_end_of_what_is_scored(plug_in, hasty):
    """The end of the evaluation is warm when it is timed."""
    spec = known(plug_in(classes=300))
    assert (spec.data.shape, spec.data.classes, spec.data.sizes) == ((3, 6, 5), 300, (500, 1100))
    done = carry_out(spec, blocks=1)
    assert (done.trained.samples, done.scored.samples, done.ready.parameters) == (500, 1100, 91 * 300)


def test_a_batch_of_more_than_all_images_is_refused(plug_in):
    with pytest.raises(TrialError, match="501 is more than the 500 training images"):
        prepare(known(plug_in(batch_size=501)))


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_has_the_same_images(plug_in, name):
    tensors = "{'test': tuple(map(torch.as_tensor, images(1100)))}"  # are taken as arrays are
    spec = known(plug_in(tensors, pipeline=name))
    pipeline = load(PIPELINES[name])(spec, training_of(spec.model, "standard", spec.data), torch.device("cpu"))
    pipeline.transfer()
    given = pipeline.train_batches(torch.arange(500)), pipeline.test_batches()
    for batches, images in zip(given, sets.opened(spec)[1:], strict=True):
        pixels, labels = map(torch.cat, zip(*batches, strict=True))
        wanted = (images.data / 255 - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / 0.2
        assert torch.allclose(pixels, wanted, rtol=0, atol=1e-5)
        assert torch.equal(labels, images.targets)


REFUSED = [
    ("{'mean': 'bright'}", "mean: should be a number from 0 to 1 (pixels are scaled to that), or 3, one for each"),
    ("{'mean': 127.0}", "mean: should be a number from 0 to 1"),
    ("{'std': (0.2, 0.2)}", "std: should be a number from 1e-06 to 1"),
    ("{'std': 0}", "std: should be a number from 1e-06 to 1"),
    ("{'std': float('nan')}", "std: should be a number from 1e-06 to 1"),
    ("{'names': []}", "returned the keys train, test, mean, std, names, not {'train': (images, labels)"),
    ("{'train': np.zeros(3)}", "train is a ndarray: make it (images, labels): uint8 (N, C, H, W), and whole numbers"),
    ("{'test': (images(2)[0] / 255, np.zeros(2, int))}", "test is float64 (2, 3, 6, 5), int64 (2,): make it"),
    ("{'train': (images(2)[0][0], np.zeros(2, int))}", "train is uint8 (3, 6, 5), int64 (2,): make it"),
    ("{'train': images(0)}", "train is uint8 (0, 3, 6, 5), int64 (0,): make it"),
    ("{'train': (images(2)[0], np.zeros(3, int))}", "int64 (3,): make it"),
    ("{'train': (images(2)[0], -np.ones(2, int))}", "int64 (2,): make it"),
    ("{'train': (images(2)[0], np.zeros(2))}", "float64 (2,): make it"),
    ("{'test': images(5, (1, 6, 5))}", "training images are (3, 6, 5), test images (1, 6, 5): make them alike"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_data_set_is_refused(plug_in, changes, words):
    with pytest.raises(TrialError) as caught:
        sets.opened(plug_in(changes))
    assert words in str(caught.value)


def test_nothing_is_called_unless_plug_ins_are_allowed_and_another_result_is_another_set(plug_in):
    with pytest.raises(TrialError, match=r"load is code that is not built in: add --allow-plugins to run it"):
        sets.opened(plug_in("open('here', 'w')", allow_plugins=False))
    spec = known(plug_in())
    with pytest.raises(TrialError, match=r"another data set than at the start: seed what is random"):
        sets.opened(replace(spec, data=replace(spec.data, sha256="0" * 64)))


@pytest.fixture
def repo(tmp_path, bench_environ, monkeypatch):
    """A repository to stand in."""
    found = Repo(tmp_path / "project")
    found.put("tiny.py", plug_in_of())
    monkeypatch.chdir(found.root)
    own = {"MNIST_BENCH_DATA": str(tmp_path / "data"), "COLUMNS": "200"}
    for name, value in clean_environ(**bench_environ("one") | own).items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def run(capsys):
    """Carries out a command that ends with a code; returns what it said."""

    def execute(command, code=0):
        found = main(command.split()), plain(" ".join(" ".join(capsys.readouterr()).split()))
        assert found[0] == code, found[1]
        return found[1]

    return execute


class InThisProcess(FakeWorker):
    """A worker that trains, but without a process of its own: it sees the sets that the test made."""

    def __init__(self, spec, *_):
        super().__init__(replace(spec, memory_bytes=None))
        self._trial = new_trial()

    def call(self, request):
        begin = clock()
        reply = decode_reply(encode(answer(self._trial, request)))
        self.token_ns += clock() - begin
        return reply


def test_a_set_goes_through_all(repo, run, tiny, tmp_path, monkeypatch, hasty):
    """Files of MNIST's layout, their checksums injected, and a plug-in; one pair is the only look of a check."""
    sums = {state.path.name: state.found for state in inspect(Path(tiny.root), "synthetic")}
    for name, folder in (("kmnist", "KMNIST"), ("fashion-mnist", "FashionMNIST")):
        shutil.copytree(Path(tiny.root) / "MNIST", tmp_path / "data" / folder)
        monkeypatch.setitem(SETS, name, replace(SETS[name], checksums=sums, packed=False))
    for module in (runner, sides, plan):
        monkeypatch.setattr(module, "LocalWorker", InThisProcess)
    monkeypatch.setattr(sides, "prove", lambda a, b, interrupts: ("", []))
    for module in (conduct, samples):
        monkeypatch.setattr(module, "looks", lambda cells, margins: {1: 0.001})
    monkeypatch.setattr(sides, "PAIR_TOKEN_S", 0.1)
    for name in ("kmnist", "fashion-mnist", "tiny:load"):
        model, title = ("mlp", SETS[name].folder) if name in SETS else ("tiny:build", name)
        repo.put("m.yaml", json.dumps(MATRIX | {"dataset": name, "models": [model], "batch_sizes": [20]}))
        repo.commit()
        assert run("run m.yaml --allow-plugins --offline --no-wait --format csv").count(f",{name},") == 2
        assert "identical" in run("compare --by variant")
        run("report --output page.html")
        assert f">{title} benchmark<" in Path("page.html").read_text()
        main(CHECK.split())  # one pair is too few to decide
        found, _ = outputs.decode(Path("results/checks/latest/check.json").read_bytes())
        (one,) = found.cells
        assert (len(one.pairs), one.seeds[0].a, one.a.reason) == (1, one.seeds[0].b, "")
    runs = sorted(path.name for path in Path("results").glob("2*"))
    assert "not comparable: data set" in run(f"compare {runs[0]} {runs[1]}", 5)


@pytest.mark.usefixtures("one_core")
def test_real_workers_are_asked_what_a_plug_in_returns_and_each_side_s_its_own(repo, run):
    repo.put("m.yaml", json.dumps(MATRIX | {"dataset": "tiny:load", "models": ["mlp"], "batch_sizes": [70_000]}))
    assert "'tiny:load' is code: add --allow-plugins" in run("run m.yaml", 2)
    said = run("run m.yaml --allow-plugins --no-wait", 2)
    assert "mlp: made for images of 1 x 28 x 28 and 10 classes; tiny:load has 3 x 32 x 32 and 7" in said
    assert "70000 is more than the 500 training images of tiny:load" in said
    assert not Path("results").exists()
    repo.put("m.yaml", json.dumps(MATRIX | {"dataset": "tiny:load", "models": ["tiny:build"], "batch_sizes": [20]}))
    run("run m.yaml --allow-plugins --no-wait --filter variant=one")
    repo.commit()
    repo.put("tiny.py", plug_in_of(changes="{'std': 0.3}"))
    assert "tiny:load returns another in A than in B" in run(f"{CHECK} --budget 1s", 5)
