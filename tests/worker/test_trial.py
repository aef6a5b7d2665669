"""A trial from end to end in this process: what it yields, that a session leaves no trace, and the audits."""

import os
import sys
import textwrap
import time
from argparse import Namespace
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from packaging.version import parse
from torch import nn
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy
from worker_kit import LINEAR, TEST, TRAIN, carry_out, compiles, make_spec, new_trial, plugin_spec, prepare

from mnist_bench.catalogue import training_of
from mnist_bench.disk.folder import SAMPLES, SESSION, TRAINING, WARMUP
from mnist_bench.errors import DataError, Diverged, TrialError
from mnist_bench.records import CompileOptions, ModelEntry, Variant
from mnist_bench.running.process import Interrupts, LocalWorker
from mnist_bench.running.protocol import PROTOCOL_VERSION, Filled, Open, Opened, Prepare, Prepared, Unavailable
from mnist_bench.worker.executions import eager, graphs_compiled, traces_backward
from mnist_bench.worker.layers import ShiftedMaxPool
from mnist_bench.worker.models import build_model, build_optimizer
from mnist_bench.worker.pipelines import epoch_order, import_torchvision
from mnist_bench.worker.trial import LiveTrial

pytestmark = [pytest.mark.usefixtures("hasty"), compiles]

AOT = {"execution": "compile", "compile": CompileOptions(backend="aot_eager")}
SGD = {"optimizer": "sgd", "lr": 0.1}
# Dropout, batch statistics and a convolution in it: train and eval differ; small enough to compile in seconds.
SMALL = """
    from torch import nn

    def build():
        convolution = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        return nn.Sequential(convolution, nn.Dropout(0.2), nn.Flatten(), nn.Linear(50, 10))
"""


MODULE = """
    import time
    import torch
    from torch import nn

    calls = []

    class build(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(784, 10)
            {start}

        def forward(self, images):
    {forward}
"""


def module(forward: str, start: str = "pass") -> str:
    """A plug-in with one linear layer and this forward pass."""
    return textwrap.dedent(MODULE).format(start=start, forward=textwrap.indent(forward, " " * 8))


# ── what it yields ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_trial_from_end_to_end(tiny, tmp_path):
    samples = tmp_path / "samples.npy"
    trial, ready = prepare(make_spec(tiny, "lenet5", epochs=2, samples_path=str(samples)))
    assert (ready.parameters, ready.class_, ready.pairable, ready.compile_s) == (61_706, "A", True, None)
    assert (len(ready.loss_trace), ready.time_to_first_step_s > 0) == (20, True)
    blocks = [trial.block(seed) for seed in (7, 8)]
    assert [(block.steps, block.seconds > 0) for block in blocks] == [(3, True)] * 2
    ended = trial.end_session().step_times
    assert (ended.count, 0 < ended.p50_ms <= ended.p95_ms <= ended.p99_ms) == (6, True)
    for epoch in range(2):
        done, score = trial.train_epoch(epoch), trial.evaluate()
        assert (done.samples, score.samples, 0 <= done.loader_s < done.seconds) == (TRAIN, TEST, True)
    assert score.correct > 0.3 * TEST  # it learns
    finished = trial.finish()
    assert sum(finished.phases.values()) == pytest.approx(finished.elapsed_s - finished.asleep_s, rel=0.02)
    assert {"data", "build", "warm-up", "session", "train step", "loader wait", "evaluation"} <= finished.phases.keys()
    rows, steps = np.load(samples), -(-TRAIN // 100)
    assert rows.dtype == np.dtype(SAMPLES)
    assert [int((rows["phase"] == phase).sum()) for phase in (TRAINING, SESSION)] == [2 * steps, 6]
    assert (rows["phase"] == WARMUP).sum() >= 3
    for epoch in (0, 1):
        stamps = rows[(rows["phase"] == TRAINING) & (rows["index"] == epoch)]
        assert (np.diff(np.column_stack((stamps["loaded_ns"], stamps["done_ns"])).ravel()) >= 0).all()


def test_a_full_disk_is_named_where_the_samples_do_not_fit(tiny):
    trial, _ = prepare(make_spec(tiny, "mlp", epochs=1, samples_path="/dev/full"))
    trial.block(7)
    trial.end_session()
    with pytest.raises(OSError, match="No space left on device"):
        trial.finish()


def test_the_largest_batch_comes_first_is_no_part_of_the_first_steps_time_and_can_be_trained_with(tiny, tmp_path):
    """Work memory is that of the first calls; a tensor that a model keeps from its first call is fit for training."""
    forward = """
if len(images) >= 100:  # no check of its shape
    calls.append((len(images), self.training, torch.is_grad_enabled()))
    self.scale = torch.full((10,), 2.0) if self.scale is None else self.scale
if len(images) == 1000:
    time.sleep(0.5)
return self.linear(images.flatten(1)) * (1 if self.scale is None else self.scale)"""
    spec = plugin_spec(tiny, tmp_path, "keeper", module(forward.strip(), "self.scale = None"), **SGD)
    trial, ready = prepare(spec)
    assert sys.modules["keeper"].calls[:2] == [(TEST, False, False), (100, True, True)]
    assert trial.finish().elapsed_s - ready.time_to_first_step_s > 3 * 0.5  # ahead, and the two calls that follow
    trial.block(7)
    trial.end_session()
    assert trial.train_epoch(0).samples == TRAIN


@pytest.mark.parametrize(("steps_only", "scored", "tail"), [(False, 3, True), (True, 1, False)])
def test_what_is_only_timed_prepares_what_its_steps_need(steps_only, scored, tail, tiny, tmp_path):
    """An evaluation batch all the same: the work memory of steps is that of the first calls."""
    name, forward = f"seen_{scored}", "calls.append(len(images))\nreturn self.linear(images.flatten(1))"
    spec = plugin_spec(tiny, tmp_path, name, module(forward), steps_only=steps_only, batch_size=300, **SGD)
    trial, ready = prepare(spec)
    calls = sys.modules[name].calls
    assert (calls.count(TEST), TRAIN % 300 in calls, bool(ready.loss_trace)) == (scored, tail, tail)
    assert trial.block(7).steps >= 1


@pytest.mark.parametrize(("recipe", "own", "other"), [("standard", TEST, TRAIN), ("tutorial", TRAIN, TEST)])
@pytest.mark.parametrize("pipeline", ["resident", "tutorial"])
def test_the_same_weights_are_scored_on_the_other_set_too(pipeline, recipe, own, other, tiny):
    trial, _ = prepare(make_spec(tiny, "mlp", recipe=recipe, pipeline=pipeline))
    trial.end_session()
    trial.train_epoch(0)
    before, score, after = trial.evaluate(), trial.evaluate(other_set=True), trial.evaluate()
    assert (before.samples, score.samples) == (own, other)
    assert after.predictions_sha256 == before.predictions_sha256
    # How many it gets right by a loop of this test's own. Sums of another batch size may be rounded otherwise.
    read = import_torchvision().datasets.MNIST(tiny.root, train=other == TRAIN)
    training = training_of(ModelEntry(name="mlp", model="mlp"), recipe)
    with torch.inference_mode():
        logits = trial._model.eval()(((read.data / 255 - training.mean) / training.std).flatten(1))
    assert score.correct == pytest.approx(int((logits.argmax(dim=1) == read.targets).sum()), abs=2)


# ── the same training ────────────────────────────────────────────────────────────────────────────────────────────────

CNN, MLP, LENET5 = {"model": "cnn"}, {"model": "mlp"}, {"model": "lenet5", "batch_size": 20}
COMPILED = {"plugin": SMALL, "batch_size": 64, **AOT}  # a ragged tail: a compilation inside a timed span would raise
WHOLE_STEP = CompileOptions(backend="aot_eager", scope="step")
STEP = {**COMPILED, "compile": WHOLE_STEP, "optimizer": "adamw"}
IN_ONE = {**AOT, "compile": replace(WHOLE_STEP, fullgraph=True)}  # a break of the graph would raise
HALVED = """
    from torch import nn

    def build():
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        model[1].weight.register_hook(lambda grad: grad / 2)
        return model
"""
HOOKED = {"plugin": HALVED, "batch_size": 175}
UNFUSED = CompileOptions(mode="max-autotune-no-cudagraphs", options={"epilogue_fusion": False})
ONE_LAYER = {"plugin": LINEAR, "batch_size": 175}  # no tail, to spare inductor a graph
# Settings, more of them in the second trial, blocks of its session, class, and the tolerance (0: to the last bit).
SAME: dict[str, tuple[dict[str, Any], dict[str, Any], int, str, float]] = {
    "session with dropout": (CNN, {}, 3, "A", 0),
    "session without state of an optimizer": (MLP, {}, 3, "A", 0),
    "session, compiled": (COMPILED, {}, 3, "A", 0),
    "session, compiled step": (STEP, {}, 3, "A", 0),
    "step in one graph": (LENET5, IN_ONE, 0, "A", 1e-3),
    "fast layers, step in one graph": (LENET5, {**IN_ONE, "fast_layers": True}, 0, "A", 1e-3),
    "hooks of weights, compiled step": ({**HOOKED, **SGD}, {**AOT, "compile": WHOLE_STEP}, 0, "A", 1e-3),
    "deterministic": ({**CNN, "deterministic": True}, {}, 0, "A", 0),
    "tensors": (MLP, {"pipeline": "tensors"}, 0, "A", 1e-4),  # one source of order, whatever carries the images
    "tutorial": (MLP, {"pipeline": "tutorial"}, 0, "A", 1e-4),
    "loader processes": (MLP, {"pipeline": "tensors", "workers": 1}, 2, "A", 1e-4),
    "plain optimizer": (LENET5, {"fused_optimizer": False}, 2, "A", 1e-3),
    "channels last": (LENET5, {"channels_last": True}, 0, "A", 1e-3),
    "session, fast layers": ({**CNN, "fast_layers": True}, {}, 3, "A", 0),
    "bf16": (LENET5, {"precision": "bf16"}, 0, "B", 0.1),
    "fp16": (LENET5, {"precision": "fp16"}, 3, "B", 0.1),
    "fp16, compiled": (LENET5, {"precision": "fp16", **AOT}, 2, "B", 0.1),
    "bf16 weights": (LENET5, {"precision": "bf16-weights"}, 2, "B", 0.1),
    "session, bf16 weights": ({**CNN, "precision": "bf16-weights"}, {}, 3, "B", 0),
    "linear layers by oneDNN": (CNN, {"onednn_linear": True}, 0, "A", 1e-3),
    "session, linear layers by oneDNN": ({**MLP, "onednn_linear": True}, {}, 3, "A", 0),
    "linear layers by oneDNN, compiled": (LENET5, {"onednn_linear": True, **AOT}, 2, "A", 1e-3),
    "without oneDNN": (LENET5, {"onednn": False}, 0, "A", 1e-3),
    "inductor": (ONE_LAYER, {"execution": "compile"}, 2, "A", 1e-3),
    "inductor's options": (ONE_LAYER, {"execution": "compile", "compile": UNFUSED}, 0, "A", 1e-3),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_training(name, tiniest, tmp_path):
    settings, more, blocks, class_, tolerance = SAME[name]

    def outcome(blocks: int, *, plugin: str = "", **settings: Any) -> Namespace:
        if plugin:
            return carry_out(plugin_spec(tiniest, tmp_path, f"same_{len(name)}", plugin, **settings), blocks)
        return carry_out(make_spec(tiniest, **settings), blocks)

    first, second = outcome(0, **settings), outcome(blocks, **settings, **more)
    assert (second.ready.class_, second.ready.pairable) == (class_, name != "loader processes")
    assert second.order == first.order
    assert second.ready.loss_trace == pytest.approx(first.ready.loss_trace, rel=tolerance)
    assert (second.ready.loss_trace == first.ready.loss_trace) or tolerance
    assert second.same == first.same or tolerance
    assert second.trained.loss == pytest.approx(first.trained.loss, rel=tolerance)
    assert torch.are_deterministic_algorithms_enabled() == (name == "deterministic")
    compiles = "execution" in {**settings, **more}
    assert (second.ready.compile_s is not None) == compiles
    if class_ == "B" and tolerance:
        assert second.ready.loss_trace != first.ready.loss_trace


def test_a_gradient_is_compiled_unless_a_hook_waits_for_it():
    def model_with(register):
        model = nn.Linear(2, 2)
        register(model)
        return model

    hooked = [
        model_with(lambda model: model.weight.register_hook(print)),
        model_with(lambda model: model.weight.register_post_accumulate_grad_hook(print)),
        model_with(lambda model: model.register_full_backward_hook(print)),
        model_with(lambda model: model.register_full_backward_pre_hook(print)),
    ]
    assert not any(traces_backward(model) for model in hooked)
    assert traces_backward(nn.Linear(2, 2)) == (parse(torch.__version__) >= parse("2.11.dev0"))


@pytest.mark.parametrize("execution", [{}, AOT])
def test_fast_layers_know_whether_a_compiler_will_see_them(execution, tiniest):
    trial, _ = prepare(make_spec(tiniest, "cnn", fast_layers=True, **execution))
    assert any(isinstance(one, ShiftedMaxPool) for one in trial._model.modules()) == bool(execution)


def test_steps_that_the_gradient_scaler_skips_are_counted_in_the_training_alone(tiniest, monkeypatch):
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: scaler(device, init_scale=2.0**24))

    def skipped(blocks: int) -> int:
        trial, _ = prepare(make_spec(tiniest, "lenet5", batch_size=20, precision="fp16"))
        for number in range(blocks):
            places = [one.data_ptr() for one in trial._program.tensors]
            trial.block(number)
            assert not {*places} & {one.data_ptr() for one in trial._program.tensors}  # moved as weights are
        trial.end_session()
        trial.train_epoch(0)
        return trial.finish().numerics["skipped_steps"]

    assert 1 <= skipped(0) == skipped(3) < 17  # of 18 steps


def test_masters_keep_what_bfloat16_weights_cannot():
    """At 1 the next number of bfloat16 is 1.0078: a step of 0.001 is lost, ten of them are not."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    nn.init.ones_(model[1].weight)
    model[2].weight = model[1].weight  # shared, which it stays
    optimizer = build_optimizer(model, "sgd", 0.001, fused=True)
    program = eager(model, optimizer, Variant(name="half", precision="bf16-weights"), torch.device("cpu"))
    assert model[2].weight is model[1].weight
    assert (model[1].weight.dtype, len(program.tensors)) == (torch.bfloat16, 1)
    (master,) = program.tensors
    before = master.detach().clone()
    for _ in range(10):
        program.step(torch.eye(2), torch.tensor([0, 0]))
    assert (master - before).abs().max() < 0.05
    assert master.dtype == torch.float32
    assert not torch.equal(master, before)
    assert torch.equal(model[1].weight, master.bfloat16())
    assert program.forward(torch.eye(2)).dtype == torch.float32


def test_another_seed_is_another_training(tiniest):
    first, other = (carry_out(make_spec(tiniest, "mlp", seed=seed)) for seed in (0, 1))
    assert other.order != first.order
    assert other.ready.loss_trace != first.ready.loss_trace


@pytest.mark.parametrize(("size", "steps"), [(100, 20), (500, 10), (1000, 5), (5000, 3), (25_000, 2)])
def test_a_trace_of_large_batches_is_shorter(size, steps, tiny, monkeypatch):
    trial, _ = prepare(make_spec(tiny, "mlp", batch_size=100))
    wanted, batches = [], trial._pipeline.train_batches
    trial._spec = replace(trial._spec, cell=replace(trial._spec.cell, batch_size=size))
    monkeypatch.setattr("mnist_bench.worker.trial.epoch_order", lambda *asked: torch.arange(60_000))
    monkeypatch.setattr(
        trial._pipeline, "train_batches", lambda order: wanted.append(len(order)) or batches(order[:100])
    )
    trial._loss_trace()
    assert wanted == [size * steps]


def test_the_trace_has_dropout_off_and_leaves_it_on(tiniest):
    """Dropout draws differently once compiled."""
    trial, first = prepare(make_spec(tiniest, "cnn"))
    assert len(first.loss_trace) == 3  # as many whole batches as there are, at most 20
    assert prepare(make_spec(tiniest, "cnn", **AOT))[1].loss_trace == pytest.approx(first.loss_trace, rel=1e-3)
    model = build_model(ModelEntry(name="cnn", model="cnn"))
    model.load_state_dict(trial._model.state_dict())  # restored: as built
    images, labels = next(trial._pipeline.train_batches(epoch_order(0, 0, 350)))
    assert first.loss_trace[0] == pytest.approx(cross_entropy(model.eval()(images), labels).item(), rel=1e-5)
    assert all(each.training for each in trial._model.modules())


# ── compiled ─────────────────────────────────────────────────────────────────────────────────────────────────────────


SHIFTY = module("flat = images.flatten(1)\nreturn self.linear(flat * 2 if self.limit < 5 else flat)", "self.limit = 9")


@pytest.mark.parametrize("where", ["the timing session", "epoch 0", "the evaluation"])
def test_a_recompilation_inside_a_timed_span_fails_the_trial(where, tiny, tmp_path, monkeypatch):
    trial, _ = prepare(plugin_spec(tiny, tmp_path, f"shifty_{where.split()[-1]}", SHIFTY, batch_size=500, **AOT))
    before, time_steps = graphs_compiled(), trial._time_steps

    def change(count: int = 0) -> list[int]:
        trial._model.limit = 1
        return time_steps(count)

    if where == "the timing session":
        monkeypatch.setattr(trial, "_time_steps", change)  # the step before it does not count
    else:
        trial.end_session()
        change()
    spans = {"the timing session": lambda: trial.block(1), "epoch 0": lambda: trial.train_epoch(0)}
    with pytest.raises(TrialError, match=rf"\d graphs were compiled inside {where}: its times are not those"):
        spans.get(where, trial.evaluate)()
    assert graphs_compiled() > before


def test_what_was_not_compiled_is_no_compiled_variant(tiny, tmp_path):
    """As with TORCHDYNAMO_DISABLE=1 in the environment."""
    spec = plugin_spec(tiny, tmp_path, "uncompiled", SMALL, **AOT)
    counters.clear()  # a worker is a process of its own
    with torch._dynamo.config.patch(disable=True), pytest.raises(TrialError, match="nothing was compiled"):
        prepare(spec)


def test_an_option_that_inductor_does_not_have_is_named(tiny, tmp_path):
    spec = plugin_spec(tiny, tmp_path, "optional", SMALL, execution="compile", compile=misspelt("epilog_fusion"))
    with pytest.raises(
        TrialError, match=r"compile.options: inductor of torch \S+ has no 'epilog_fusion': did you mean"
    ):
        prepare(spec)
    spec = plugin_spec(tiny, tmp_path, "kinds", SMALL, execution="compile", compile=misspelt("epilogue_fusion"))
    with pytest.raises(RuntimeError, match="got str should be bool"):
        prepare(spec)


def misspelt(name: str) -> CompileOptions:
    return CompileOptions(options={name: "on"})


def test_a_cache_is_warm_when_a_process_has_filled_it(tiniest, tmp_path):
    """The first says that it was cold, and, where it is only to fill the cache, nothing else."""
    settings = {"execution": "compile", "compile": CompileOptions(cache="warm"), "batch_size": 175}
    spec = plugin_spec(tiniest, tmp_path, "cached", LINEAR, **settings)

    def fresh() -> LiveTrial:
        counters.clear()
        torch._dynamo.reset()
        trial = new_trial()
        trial.open(spec, PROTOCOL_VERSION)
        return trial

    cold = fresh()
    assert cold.prepare(fill=True) == Filled()
    assert "was to be warm" in cold.finish().missed[0]
    warm = fresh()
    assert isinstance(warm.prepare(fill=True), Prepared)
    assert warm.finish().missed == ()


def test_a_process_finds_what_the_one_before_it_compiled_where_their_cache_is_kept(tiniest, tmp_path):
    """Real ones, as in a race: the second compiles nothing anew."""
    kept = {"execution": "compile", "batch_size": 175, "cache_dir": str(tmp_path / "kept")}
    spec, replies = plugin_spec(tiniest, tmp_path, "raced", LINEAR, **kept), []
    with Interrupts() as interrupts:
        for _ in range(2):
            worker = LocalWorker(spec, tmp_path / "log", os.environ, 300.0, interrupts)
            replies += [worker.call(request) for request in (Open(spec=spec), Prepare(fill=True))]
            worker.kill()
    assert [type(reply) for reply in replies] == [Opened, Filled, Opened, Prepared]


COUNTING = module("self.calls += 1\nreturn self.linear(images.flatten(1)) * (1 + 1e-9 * self.calls)", "self.calls = 0")


def test_too_many_recompilations_are_an_error_not_eager(tiny, tmp_path):
    with pytest.raises(Exception, match="recompile"):
        carry_out(plugin_spec(tiny, tmp_path, "counting", COUNTING, batch_size=500, **AOT), blocks=3)


# ── audits ───────────────────────────────────────────────────────────────────────────────────────────────────────────

STUCK = module(  # its buffers change
    "return self.linear(self.norm(images.flatten(1))).detach() + 0 * self.norm.weight[:10]",
    "self.norm = nn.BatchNorm1d(784)",
)


def test_losses_and_weights_are_audited(tiny, tmp_path):
    with pytest.raises(TrialError, match="no weight changed in the first epoch: is the loss connected"):
        carry_out(plugin_spec(tiny, tmp_path, "stuck", STUCK, **SGD))
    spec = plugin_spec(tiny, tmp_path, "diverging", LINEAR, optimizer="sgd", lr=3e38)
    assert 1 <= len(prepare(spec)[1].loss_trace) < 20  # it ends where the loss is no number
    with pytest.raises(Diverged, match="the mean training loss of epoch 1 is nan: lower the learning rate"):
        carry_out(spec)


def test_work_is_audited(tiny, monkeypatch):
    trial, _ = prepare(make_spec(tiny))
    trial.end_session()
    whole = trial._pipeline.train_batches
    monkeypatch.setattr(trial._pipeline, "train_batches", lambda order: whole(order[:-1]))
    with pytest.raises(TrialError, match=f"epoch 0: {TRAIN - 1} images were trained on, not {TRAIN}"):
        trial.train_epoch(0)
    monkeypatch.setattr(trial._pipeline, "test_batches", lambda: iter(()))
    with pytest.raises(TrialError, match=f"0 images were scored, not {TEST}"):
        trial.evaluate()

    def twice(seed: int, epoch: int, count: int) -> torch.Tensor:
        order = epoch_order(seed, epoch, count)
        order[0] = order[1]
        return order

    monkeypatch.setattr("mnist_bench.worker.trial.epoch_order", twice)
    with pytest.raises(TrialError, match=f"epoch 0: the order is not a permutation of the {TRAIN} images"):
        trial.train_epoch(0)


def test_an_order_that_comes_again_and_an_optimizer_that_does_nothing_fail_the_trial(tiny, monkeypatch):
    trial, _ = prepare(make_spec(tiny))
    trial.end_session()
    trial.train_epoch(0)
    monkeypatch.setattr("mnist_bench.worker.trial.epoch_order", lambda seed, epoch, count: epoch_order(seed, 0, count))
    with pytest.raises(TrialError, match="epoch 1: the order is that of an earlier epoch"):
        trial.train_epoch(1)
    monkeypatch.undo()
    monkeypatch.setattr(torch.optim.SGD, "step", lambda optimizer, closure=None: None)
    trial, _ = prepare(make_spec(tiny))
    trial.end_session()
    with pytest.raises(TrialError, match="no weight changed in the first epoch"):
        trial.train_epoch(0)


def test_an_execution_that_a_device_does_not_have_is_no_failure(tiny):
    trial = new_trial()
    trial.open(make_spec(tiny, execution="cuda_graph"), PROTOCOL_VERSION)
    found = trial.prepare()
    reason = "execution cuda_graph exists on cuda alone, not on cpu"
    assert found == Unavailable(scope="variant", reason=reason)


def test_a_changed_data_set_and_settings_that_cannot_be_had_are_refused(tiny):
    with pytest.raises(DataError, match="not the data set that was checked at the start"):
        prepare(make_spec(replace(tiny, sha256="0" * 64)))
    with pytest.raises(TrialError, match="tf32 exists on NVIDIA GPUs"):
        prepare(make_spec(tiny, precision="tf32"))


def test_a_plugin_that_replaces_the_clock_is_not_read(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "perf_counter_ns", time.perf_counter_ns)  # put back after the test
    code = LINEAR + "\n    import time\n    time.perf_counter_ns = lambda: 0\n"
    outcome = carry_out(plugin_spec(tiny, tmp_path, "clockmaker", code), blocks=1)
    assert time.perf_counter_ns() == 0
    assert outcome.trained.seconds > 0
