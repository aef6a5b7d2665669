"""What the tests of the worker share: specs, live trials. The plug-ins are written by the tests."""

import textwrap
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from mnist_bench.records import Cell, DataSet, ModelEntry, TrialSpec, Variant, trial_id
from mnist_bench.running.protocol import PROTOCOL_VERSION, Prepared
from mnist_bench.worker.loop import Waterfall, clock
from mnist_bench.worker.trial import LiveTrial

TRAIN, TEST = 2300, 1000

# Learns something in one epoch, in a few milliseconds.
LINEAR = """
    from torch import nn

    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""

# torch's compiler meets deprecated parts of torch as it is imported and used.
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


def write_plugin(folder: Path, name: str, code: str) -> None:
    """Modules are remembered by name for the life of the process: give each plug-in a name of its own."""
    (folder / f"{name}.py").write_text(textwrap.dedent(code))


def make_spec(data: DataSet, model: str = "mlp", **changes: Any) -> TrialSpec:
    """A spec, on the CPU. ``changes``: fields of the spec, of its cell, of a variant; ``optimizer`` and ``lr``."""
    own = {key: changes.pop(key, None) for key in ("optimizer", "lr")}
    entry = ModelEntry(name=model.replace(":", "."), model=model, **own)
    fields = set(TrialSpec.__dataclass_fields__)
    settings = {key: changes.pop(key) for key in list(changes) if key not in {*fields, "batch_size", "device"}}
    variant = Variant(name="tested", threads=1, **settings)
    where = {"device": changes.pop("device", "cpu"), "batch_size": changes.pop("batch_size", 100)}
    cell = Cell(model=entry.name, variant=variant.name, **where)
    spec: dict[str, Any] = {"seed": 0, "recipe": "standard", "epochs": 1, "allow_plugins": True, **changes}
    return TrialSpec(id=trial_id(cell, spec["seed"]), cell=cell, model=entry, variant=variant, data=data, **spec)


def plugin_spec(data: DataSet, folder: Path, name: str, code: str, **changes: Any) -> TrialSpec:
    write_plugin(folder, name, code)
    return make_spec(data, f"{name}:build", plugin_path=str(folder), **changes)


def new_trial() -> LiveTrial:
    return LiveTrial(Waterfall(clock, clock()))


def prepare(spec: TrialSpec) -> tuple[LiveTrial, Prepared]:
    trial = new_trial()
    trial.open(spec, PROTOCOL_VERSION)
    reply = trial.prepare()
    assert isinstance(reply, Prepared)
    return trial, reply


def carry_out(spec: TrialSpec, blocks: int = 0) -> Namespace:
    """What a whole trial, in the order of the protocol, leaves behind."""
    trial, ready = prepare(spec)
    for number in range(blocks):
        assert trial.block(number).steps >= 3
    trial.end_session()
    for epoch in range(spec.epochs):
        trained, scored = trial.train_epoch(epoch), trial.evaluate()
    order = trial.finish().order_sha256
    predicted = scored.predictions_sha256
    return Namespace(ready=ready, trained=trained, scored=scored, same=(trained.loss, predicted, order), order=order)
