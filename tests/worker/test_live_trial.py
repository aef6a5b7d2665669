"""A trial from end to end in this process, eager: what it yields, that a session leaves no trace, and the audits."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from worker_kit import LINEAR, TEST, TRAIN, carry_out, make_spec, open_trial, write_plugin

from mnist_bench.errors import DataError, Diverged, TrialError
from mnist_bench.models import training_of
from mnist_bench.protocol import Prepared
from mnist_bench.records import DataSet, ModelEntry, TrialSpec
from mnist_bench.samples import SAMPLES, SESSION, TRAINING, WARMUP
from mnist_bench.worker.building import build_model
from mnist_bench.worker.pipelines import epoch_order, import_torchvision
from mnist_bench.worker.trial import LiveTrial

pytestmark = pytest.mark.usefixtures("hasty")


def plugin_spec(data: DataSet, folder: Path, name: str, code: str, **changes: object) -> TrialSpec:
    write_plugin(folder, name, code)
    return make_spec(data, f"{name}:build", plugin_path=str(folder), **changes)  # type: ignore[arg-type]


def test_the_largest_batch_comes_first_and_leaves_nothing_that_training_cannot_use(
    tiny: DataSet, tmp_path: Path
) -> None:
    """Work memory is that of the first calls; a tensor that a model keeps from its first call can be trained with."""
    code = """
        import torch
        from torch import nn

        calls = []

        class Keeper(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(784, 10)
                self.scale = None

            def forward(self, images):
                if len(images) < 100:  # the check of its shape
                    return self.linear(images.flatten(1))
                calls.append((len(images), self.training, torch.is_grad_enabled()))
                if self.scale is None:
                    self.scale = torch.full((10,), 2.0)
                return self.linear(images.flatten(1)) * self.scale

        def build():
            return Keeper()
    """
    trial = open_trial(plugin_spec(tiny, tmp_path, "keeper", code, optimizer="sgd", lr=0.1))
    assert isinstance(trial.prepare(), Prepared)
    calls = sys.modules["keeper"].calls
    assert calls[:2] == [(TEST, False, False), (100, True, True)]
    trial.block(7)
    trial.end_session()
    assert trial.train_epoch(0).samples == TRAIN


def test_the_batch_ahead_of_the_first_step_is_no_part_of_the_time_to_it(tiny: DataSet, tmp_path: Path) -> None:
    code = """
        import time
        from torch import nn

        class Slow(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(784, 10)

            def forward(self, images):
                if len(images) == 1000:
                    time.sleep(0.5)
                return self.linear(images.flatten(1))

        def build():
            return Slow()
    """
    trial = open_trial(plugin_spec(tiny, tmp_path, "slow_to_score", code, optimizer="sgd", lr=0.1))
    prepared = trial.prepare()
    assert isinstance(prepared, Prepared)
    assert trial.finish().elapsed_s - prepared.time_to_first_step_s > 3 * 0.5  # ahead, and the two calls that follow


def test_a_trial_from_end_to_end(tiny: DataSet, tmp_path: Path) -> None:
    samples = tmp_path / "samples.npy"
    trial = open_trial(make_spec(tiny, "lenet5", epochs=2, samples_path=str(samples)))
    prepared = trial.prepare()
    assert isinstance(prepared, Prepared)
    assert (prepared.parameters, prepared.class_, prepared.pairable) == (61_706, "A", True)
    assert prepared.compile_s is None
    assert len(prepared.loss_trace) == 20
    assert prepared.time_to_first_step_s > 0
    block = trial.block(7)
    assert (block.steps, block.seconds > 0) == (3, True)
    trial.block(8)
    ended = trial.end_session().step_times
    assert ended is not None
    assert ended.count == 6
    assert 0 < ended.p50_ms <= ended.p95_ms <= ended.p99_ms
    for epoch in range(2):
        done = trial.train_epoch(epoch)
        assert done.samples == TRAIN
        assert 0 <= done.loader_s < done.seconds
        score = trial.evaluate()
        assert score.samples == TEST
    assert score.correct > 0.5 * TEST  # the tiny set is easily learned
    finished = trial.finish()
    awake = finished.elapsed_s - finished.asleep_s
    assert sum(finished.phases.values()) == pytest.approx(awake, rel=0.02)
    assert {"data", "build", "warm-up", "session", "train step", "loader wait", "evaluation"} <= finished.phases.keys()
    _check_samples(np.load(samples))


@pytest.mark.parametrize("pipeline", ["resident", "tutorial"])
@pytest.mark.parametrize(("recipe", "own", "other"), [("standard", TEST, TRAIN), ("tutorial", TRAIN, TEST)])
def test_the_same_weights_are_scored_on_the_other_set_too(
    recipe: str, own: int, other: int, pipeline: str, tiny: DataSet
) -> None:
    trial = open_trial(make_spec(tiny, "mlp", recipe=recipe, pipeline=pipeline))
    trial.prepare()
    trial.end_session()
    trial.train_epoch(0)
    before = trial.evaluate()
    score = trial.evaluate(other_set=True)
    assert (before.samples, score.samples) == (own, other)
    assert replace(trial.evaluate(), seconds=0.0) == replace(before, seconds=0.0)
    finished = trial.finish()
    awake = finished.elapsed_s - finished.asleep_s
    assert sum(finished.phases.values()) == pytest.approx(awake, rel=0.05)
    # Sums of another batch size may be rounded otherwise: an image on the edge.
    assert score.correct == pytest.approx(_right(trial, train=other == TRAIN), abs=2)


def _right(trial: LiveTrial, *, train: bool) -> int:
    """How many images of a set the trial's model gets right, by a loop of this test's own."""
    spec = trial._spec
    read = import_torchvision().datasets.MNIST(spec.data.root, train=train)
    training = training_of(spec.model, spec.recipe)
    inputs = ((read.data / 255 - training.mean) / training.std).flatten(1)
    with torch.inference_mode():
        return int((trial._model.eval()(inputs).argmax(dim=1) == read.targets).sum())


def _check_samples(rows: np.ndarray) -> None:
    assert rows.dtype == SAMPLES
    steps = -(-TRAIN // 100)
    assert (rows["phase"] == TRAINING).sum() == 2 * steps
    assert (rows["phase"] == SESSION).sum() == 6
    assert (rows["phase"] == WARMUP).sum() >= 3
    for epoch in (0, 1):
        stamps = rows[(rows["phase"] == TRAINING) & (rows["index"] == epoch)]
        flat = np.column_stack((stamps["loaded_ns"], stamps["done_ns"])).ravel()
        assert (np.diff(flat) >= 0).all()


@pytest.mark.parametrize("model", ["cnn", "mlp"])  # dropout draws from the generator; SGD has no state
def test_a_session_leaves_no_trace(model: str, tiniest: DataSet) -> None:
    plain = carry_out(make_spec(tiniest, model))
    timed = carry_out(make_spec(tiniest, model), blocks=3)
    assert timed.losses == plain.losses
    assert timed.scored.predictions_sha256 == plain.scored.predictions_sha256


def test_the_same_seed_is_the_same_training_another_is_not(tiny: DataSet) -> None:
    first, again, other = (carry_out(make_spec(tiny, "mlp", seed=seed)) for seed in (0, 0, 1))
    assert (first.losses, first.order_sha256) == (again.losses, again.order_sha256)
    assert first.scored.predictions_sha256 == again.scored.predictions_sha256
    assert other.order_sha256 != first.order_sha256
    assert other.prepared.loss_trace != first.prepared.loss_trace


def test_deterministic_twice_is_the_same_to_the_bit(tiniest: DataSet) -> None:
    spec = make_spec(tiniest, "cnn", deterministic=True)
    first, again = carry_out(spec), carry_out(spec)
    assert first.scored.predictions_sha256 == again.scored.predictions_sha256
    assert first.losses == again.losses
    assert torch.are_deterministic_algorithms_enabled()


def test_pipelines_train_alike(tiny: DataSet) -> None:
    """One source of order: whatever carries the images, the training is the same."""
    runs = [carry_out(make_spec(tiny, "mlp", pipeline=name)) for name in ("resident", "tensors", "tutorial")]
    assert len({run.order_sha256 for run in runs}) == 1
    for run in runs[1:]:
        assert run.prepared.loss_trace == pytest.approx(runs[0].prepared.loss_trace, rel=1e-4)
        assert run.losses == pytest.approx(runs[0].losses, rel=1e-4)


def test_a_trial_with_loader_processes_is_not_paired(tiny: DataSet) -> None:
    outcome = carry_out(make_spec(tiny, "mlp", pipeline="tensors", workers=1, batch_size=500), blocks=2)
    plain = carry_out(make_spec(tiny, "mlp", pipeline="tensors", batch_size=500))
    assert not outcome.prepared.pairable
    assert outcome.losses == plain.losses


def test_classes_and_traces_of_variants(tiniest: DataSet) -> None:
    prepared = {}
    for name, settings in {
        "eager": {},
        "unfused": {"fused_optimizer": False},
        "channels": {"channels_last": True},
        "bf16": {"precision": "bf16"},
    }.items():
        # Few and small batches: where a processor has no bf16, it takes its time.
        prepared[name] = open_trial(make_spec(tiniest, "lenet5", batch_size=20, **settings)).prepare()
        assert isinstance(prepared[name], Prepared)
    eager = prepared["eager"].loss_trace
    for name in ("unfused", "channels"):
        assert prepared[name].class_ == "A"
        assert prepared[name].loss_trace == pytest.approx(eager, rel=1e-3)
    assert prepared["bf16"].class_ == "B"
    assert prepared["bf16"].loss_trace != pytest.approx(eager, rel=1e-4)


def test_the_trace_has_dropout_off_and_leaves_it_on(tiniest: DataSet) -> None:
    trial = open_trial(make_spec(tiniest, "cnn"))
    first, again = trial.prepare(), open_trial(make_spec(tiniest, "cnn", seed=0)).prepare()
    assert isinstance(first, Prepared)
    assert isinstance(again, Prepared)
    assert first.loss_trace == again.loss_trace
    assert len(first.loss_trace) == 3  # as many whole batches as there are, at most 20
    model = build_model(ModelEntry(name="cnn", model="cnn"))
    model.load_state_dict(trial._model.state_dict())  # restored: as built
    images, labels = next(trial._pipeline.train_batches(epoch_order(0, 0, 350)))
    without_dropout = cross_entropy(model.eval()(images), labels).item()
    assert first.loss_trace[0] == pytest.approx(without_dropout, rel=1e-5)
    assert all(module.training for module in trial._model.modules())


# ── audits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_weights_that_never_change_are_found(tiny: DataSet, tmp_path: Path) -> None:
    code = """
        import torch
        from torch import nn

        class Stuck(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(784, 10)
                self.shift = nn.Parameter(torch.zeros(10))

            def forward(self, images):
                return self.linear(images.flatten(1)).detach() + 0 * self.shift

        build = Stuck
    """
    with pytest.raises(TrialError, match="no weight changed in the first epoch: is the loss connected"):
        carry_out(plugin_spec(tiny, tmp_path, "stuck", code, optimizer="sgd", lr=0.1))


def test_a_loss_that_is_not_finite_is_found(tiny: DataSet, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="the mean training loss of epoch 1 is nan: lower the learning rate"):
        carry_out(plugin_spec(tiny, tmp_path, "diverging", LINEAR, optimizer="sgd", lr=3e38))


def test_a_trace_ends_where_the_loss_is_no_number(tiny: DataSet, tmp_path: Path) -> None:
    prepared = open_trial(plugin_spec(tiny, tmp_path, "blowing_up", LINEAR, optimizer="sgd", lr=3e38)).prepare()
    assert isinstance(prepared, Prepared)
    assert 1 <= len(prepared.loss_trace) < 20


def test_an_order_that_is_no_permutation_is_found(tiny: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = open_trial(make_spec(tiny))
    trial.prepare()
    trial.end_session()

    def twice(seed: int, epoch: int, count: int) -> torch.Tensor:
        order = epoch_order(seed, epoch, count)
        order[0] = order[1]
        return order

    monkeypatch.setattr("mnist_bench.worker.trial.epoch_order", twice)
    with pytest.raises(TrialError, match=f"epoch 0: the order is not a permutation of the {TRAIN} images"):
        trial.train_epoch(0)


def test_images_that_are_dropped_are_found(tiny: DataSet) -> None:
    trial = open_trial(make_spec(tiny))
    trial.prepare()
    trial.end_session()
    whole = trial._pipeline.train_batches
    trial._pipeline.train_batches = lambda order: whole(order[:-1])  # type: ignore[method-assign]
    with pytest.raises(TrialError, match=f"epoch 0: {TRAIN - 1} images were trained on, not {TRAIN}"):
        trial.train_epoch(0)
    trial._pipeline.test_batches = lambda: iter(())  # type: ignore[method-assign]
    with pytest.raises(TrialError, match=f"0 images were scored, not {TEST}"):
        trial.evaluate()


def test_a_data_set_that_changed_since_the_start_is_refused(tiny: DataSet) -> None:
    changed = type(tiny)(name=tiny.name, root=tiny.root, sha256="0" * 64)
    with pytest.raises(DataError, match="not the data set that was checked at the start"):
        open_trial(make_spec(changed)).prepare()


def test_settings_that_cannot_be_had_are_refused_before_anything_is_read(tiny: DataSet) -> None:
    with pytest.raises(Exception, match="tf32 exists on NVIDIA GPUs"):
        open_trial(make_spec(tiny, precision="tf32")).prepare()
