"""What the tests of the worker share: a tiny data set, specs, live trials. The plug-ins are written by the tests."""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnist_bench.data.mnist import write_idx
from mnist_bench.records import Cell, DataSet, ModelEntry, TrialSpec, Variant, trial_id
from mnist_bench.run.protocol import Evaluated, Prepared
from mnist_bench.worker.clocks import Waterfall, clock
from mnist_bench.worker.trial import LiveTrial

TRAIN, TEST = 2300, 1000
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# Learns something in one epoch, in a few milliseconds.
LINEAR = """
    from torch import nn

    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


def write_tiny_set(root: Path, train: int = TRAIN, test: int = TEST) -> DataSet:
    """IDX files as torchvision reads them; each digit is a pattern of its own under noise, no image like another."""
    rng = np.random.default_rng(5)
    patterns = rng.integers(0, 200, size=(10, 28, 28))
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for count, images_file, labels_file in ((train, *FILES[:2]), (test, *FILES[2:])):
        labels = rng.integers(0, 10, size=count).astype(np.uint8)
        images = patterns[labels] + rng.integers(0, 56, size=(count, 28, 28))
        write_idx(raw / images_file, images.astype(np.uint8))
        write_idx(raw / labels_file, labels)
    digests = b"".join(hashlib.sha256((raw / name).read_bytes()).digest() for name in FILES)
    return DataSet(name="synthetic", root=str(root), sha256=hashlib.sha256(digests).hexdigest())


def write_plugin(folder: Path, name: str, code: str) -> None:
    """Modules are remembered by name for the life of the process: give each plug-in a name of its own."""
    (folder / f"{name}.py").write_text(textwrap.dedent(code))


def make_spec(data: DataSet, model: str = "mlp", **changes: Any) -> TrialSpec:
    """A spec on the CPU. ``changes``: fields of the spec, ``batch_size``, ``optimizer`` and ``lr``, or a variant's."""
    entry = ModelEntry(
        name=model.replace(":", "."),
        model=model,
        optimizer=changes.pop("optimizer", None),
        lr=changes.pop("lr", None),
    )
    fields = set(TrialSpec.__dataclass_fields__)
    settings = {key: changes.pop(key) for key in list(changes) if key not in {*fields, "batch_size"}}
    variant = changes.pop("variant", Variant(name="tested", threads=1, **settings))
    cell = Cell(model=entry.name, device="cpu", batch_size=changes.pop("batch_size", 100), variant=variant.name)
    spec: dict[str, Any] = {"seed": 0, "recipe": "standard", "epochs": 1, "allow_plugins": True, **changes}
    return TrialSpec(id=trial_id(cell, spec["seed"]), cell=cell, model=entry, variant=variant, data=data, **spec)


def plugin_spec(data: DataSet, folder: Path, name: str, code: str, **changes: Any) -> TrialSpec:
    write_plugin(folder, name, code)
    return make_spec(data, f"{name}:build", plugin_path=str(folder), **changes)


def new_waterfall() -> Waterfall:
    return Waterfall(clock, clock())


def open_trial(spec: TrialSpec) -> LiveTrial:
    return LiveTrial(spec, new_waterfall())


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial that was carried out from one end to the other left behind."""

    prepared: Prepared
    losses: tuple[float, ...]
    scored: Evaluated
    order_sha256: str
    seconds: float  # of the training


def carry_out(spec: TrialSpec, blocks: int = 0) -> Outcome:
    """A whole trial, in the order of the protocol."""
    trial = open_trial(spec)
    prepared = trial.prepare()
    assert isinstance(prepared, Prepared)
    for number in range(blocks):
        assert trial.block(number).steps == 3
    trial.end_session()
    trained = []
    for epoch in range(spec.epochs):
        trained.append(trial.train_epoch(epoch))
        scored = trial.evaluate()
    return Outcome(
        prepared=prepared,
        losses=tuple(done.loss for done in trained),
        scored=scored,
        order_sha256=trial.finish().order_sha256,
        seconds=sum(done.seconds for done in trained),
    )
