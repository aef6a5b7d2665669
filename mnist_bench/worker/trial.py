"""A trial in its worker: prepare, blocks of the session, training, evaluation (docs/measurement.md)."""

import hashlib
import io
import itertools
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from mnist_bench import data
from mnist_bench.catalogue import EXECUTIONS, PIPELINES, Training, load, training_of
from mnist_bench.disk.folder import SAMPLES, SESSION, TRAINING, WARMUP
from mnist_bench.errors import Diverged, TrialError
from mnist_bench.machine import forecast
from mnist_bench.records import CLASSES, Extras, Peaks, TrialSpec
from mnist_bench.running import protocol as messages
from mnist_bench.worker import executions, extras, loop, process, profile, sets
from mnist_bench.worker.devices import open_device
from mnist_bench.worker.executions import Program
from mnist_bench.worker.graphs import Graph
from mnist_bench.worker.layers import linear_by_onednn, replace_layers
from mnist_bench.worker.loop import NS, Batch, TrainedEpoch, Waterfall, clock, evaluate, train_epoch
from mnist_bench.worker.models import as_weights, build_model, build_optimizer, scoring
from mnist_bench.worker.pipelines import Pipeline, Resident, epoch_order
from mnist_bench.worker.process import Relocator, Snapshot, state_tensors
from mnist_bench.worker.ranks import ALONE, Ranks

TRACE_STEPS, TRACE_IMAGES = (3, 20), 5000  # the least and the most of a loss trace, and images that are enough
RECAPTURE_BLOCKS = 5  # captured graphs have fixed addresses: they are captured again every so many blocks
COLD = "the compiler did not find all in its cache, which was to be warm: compile_s is that of a colder start"
FEW_IMAGES = 20  # have so few orders that two epochs may draw the same
WARMUP_EPOCH = -1  # the order of warm-up and session, which no training epoch has


class LiveTrial:
    """All that is alive of one trial. The methods are the protocol's requests, in its order.

    Args:
        waterfall: its clock runs since the process was started.
        ranks: the processes of the trial, of which this is one; they must come to the same places.
    """

    def __init__(self, waterfall: Waterfall, ranks: Ranks = ALONE) -> None:
        self._waterfall, self._ranks = waterfall, ranks
        self._samples: list[np.ndarray[Any, Any]] = []
        self._blocks_ns: list[list[int]] = []
        self._orders, self._seen = hashlib.sha256(), set[bytes]()
        self._state_relocator, self._input_relocator = Relocator(), Relocator()

    def describe(self, spec: TrialSpec) -> messages.Described:
        """Calls the function that is the data set."""
        return messages.Described(data=sets.opened(spec)[0])

    # ── prepare ──────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, spec: TrialSpec, protocol: int) -> messages.Opened:
        """The data, in host memory. No device is touched: other members of the group may be at this too."""
        if protocol != messages.PROTOCOL_VERSION:
            raise TrialError(f"the runner speaks protocol {protocol}, this worker {messages.PROTOCOL_VERSION}")
        if self._ranks.node:
            spec = replace(spec, data=data.here(spec.data, os.environ))
        self._spec, self._training = spec, training_of(spec.model, spec.recipe, spec.data)
        self._device = open_device(self._ranks.device(spec.cell.device))
        with self._waterfall.phase("data"):
            data.verify(spec.data)
        self._pipeline = self._open_pipeline(self._training)
        return messages.Opened()

    def prepare(self, fill: bool = False) -> messages.Prepared | messages.Unavailable | messages.Filled:
        """Device, model, compilation, warm-up, the loss trace: each a phase; leaves the state as built."""
        spec = self._spec
        with self._waterfall.phase("device"):
            found = self._ranks.gathered(self._open_device())
            if unavailable := next(filter(None, found), None):
                return unavailable
        self._transfer(self._pipeline)
        with self._waterfall.phase("build"):
            self._build()
        first_step_s, compile_s = self._first_calls()
        if fill and executions.compiled_anew():
            return messages.Filled()
        with self._waterfall.phase("warm-up"):
            durations = loop.settle(self._time_steps)
            self._keep(WARMUP, 0, durations)
        with self._waterfall.phase("check"):
            trace = () if spec.steps_only else self._loss_trace()
            self._snapshot.restore()
            peaks = Peaks(
                host_bytes=process.tree_peak_bytes(self._ranks.launcher), device_bytes=self._device.peak_bytes()
            )
        self._block_steps = loop.block_steps(durations)
        return messages.Prepared(
            pairable=spec.variant.workers == 0,
            device_name=self._device.describe(),
            parameters=sum(parameter.numel() for parameter in self._model.parameters()),
            class_=CLASSES[spec.variant.precision],
            loss_trace=trace,
            time_to_first_step_s=first_step_s,
            compile_s=compile_s,
            peaks=peaks,
            gpu=self._device.uuid() if self._ranks.count == 1 else "",  # of several the energy is not known
        )

    def _open_device(self) -> messages.Unavailable | None:
        variant = self._spec.variant
        if reason := self._device.missing():
            # A GPU that only another rank would have is missing to this variant alone.
            return messages.Unavailable(scope="variant" if self._ranks.rank else "device", reason=reason)
        reason = forecast.execution_problem(self._spec.cell.device, variant)
        if reason := reason or executions.missing_compiler(variant, self._device.torch_device):
            return messages.Unavailable(scope="variant", reason=reason)
        lenient = self._spec.deterministic_if_possible
        process.apply_numerics(variant, self._device.torch_device, deterministic_if_possible=lenient)
        if self._spec.memory_bytes is not None:
            self._device.limit_memory(self._spec.memory_bytes // self._ranks.count)
        return None

    def _open_pipeline(self, training: Training) -> Pipeline:
        with self._waterfall.phase("data"):
            make: Callable[..., Pipeline] = load(PIPELINES[self._spec.variant.pipeline])
            cell = self._spec.cell
            own = replace(cell, batch_size=cell.batch_size // self._ranks.count)
            return make(replace(self._spec, cell=own), training, self._device.torch_device)

    def _transfer(self, pipeline: Pipeline) -> None:
        with self._waterfall.phase("transfer"):
            pipeline.transfer()
            self._device.synchronize()

    def _build(self) -> None:
        spec, training, device = self._spec, self._training, self._device.torch_device
        torch.manual_seed(spec.seed)
        random.seed(spec.seed)
        np.random.seed(spec.seed)
        model = build_model(spec.model, spec.data, allow_plugins=spec.allow_plugins, plugin_path=spec.plugin_path)
        execution, fused = EXECUTIONS[spec.variant.execution], spec.variant.fused_optimizer
        if spec.variant.fast_layers:
            model = replace_layers(model, compiled=execution.compiles)
        if spec.variant.onednn_linear:
            model = linear_by_onednn(model)
        self._model: nn.Module = model.to(device)
        if spec.variant.channels_last:
            self._model = self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model.train()
        self._optimizer = build_optimizer(
            self._model, training.optimizer, training.lr, fused=fused, capturable=execution.captured
        )
        self._trained = self._ranks.parallel(self._model, device)
        self._program: Program = load(execution)(self._trained, self._optimizer, spec.variant, device)
        if self._trained is not self._model:  # which scores without a word to the other ranks
            forward = executions.with_precision(self._model, spec.variant, device)
            self._program = replace(self._program, forward=forward)
        if self._ranks.rank:  # weights are rank 0's, dropout is its own
            torch.manual_seed(spec.seed + (self._ranks.rank << 32))
        if execution.captured:
            assert isinstance(self._pipeline, Resident)  # a matrix with another is refused
            graph = Graph(self._program.step, self._pipeline, self._device, spec.cell.batch_size)
            self._pipeline = graph
            self._program = replace(self._program, step=graph.step, steps=graph.steps, capture=graph.capture)
        self._snapshot = Snapshot(self._model, self._optimizer, device, self._program.tensors)
        self._losses: list[torch.Tensor] = []
        self._stream = self._full_batches()
        self._one_step = self._steady_step()

    def _full_batches(self) -> Iterator[Batch]:
        """Batches without end, none ragged, in an order that no training epoch has."""
        count, size = self._pipeline.train_images, self._spec.cell.batch_size
        if size > count:
            raise TrialError(f"batch_sizes: {size} is more than the {count:,} training images of the data set")
        orders = (epoch_order(self._spec.seed, WARMUP_EPOCH - repeat, count) for repeat in itertools.count())
        whole = (self._batches(order[: count // size * size]) for order in orders)
        return itertools.chain.from_iterable(whole)

    def _batches(self, order: torch.Tensor) -> Iterator[Batch]:
        """Batches of these images, or of each batch what this rank trains on."""
        return self._pipeline.train_batches(self._ranks.share(order, self._spec.cell.batch_size))

    def _steady_step(self) -> Callable[[], None]:
        """One step as ``loop.train_epoch`` has it, on the next full batch."""
        next_batch, step, keep = self._stream.__next__, self._program.step, self._losses.append

        def one_step() -> None:
            images, labels = next_batch()
            keep(step(images, labels))

        return one_step

    def _first_calls(self) -> tuple[float, float | None]:
        """Calls every shape to come twice: full, tail and evaluation batch; of a trial that is only timed, the first.

        Returns:
            The awake seconds from the process's start to the first finished step; and, where something is compiled, the
            seconds of the first calls less those of the second.
        """
        compiled = EXECUTIONS[self._spec.variant.execution].compiles
        ahead_s = self._call(self._score_ahead)
        with self._waterfall.phase("compile" if compiled else "warm-up"):
            step, (images, labels) = self._program.step, next(self._stream)
            more_s = self._call(step, images, labels)
            first_step_s = self._waterfall.elapsed_s() - self._waterfall.asleep_s() - ahead_s
            more_s -= self._call(step, images, labels)
            if not self._spec.steps_only:
                if tail := self._pipeline.train_images % self._spec.cell.batch_size // self._ranks.count:
                    more_s += self._more_at_first(step, images[:tail], labels[:tail])
                with scoring(self._model):
                    scored, _ = next(iter(self._pipeline.test_batches()))
                    more_s += self._more_at_first(self._program.forward, scored)
                    if tail := self._pipeline.test_images % len(scored):
                        more_s += self._more_at_first(self._program.forward, scored[:tail])
        if compiled and not executions.graphs_compiled():
            raise TrialError("nothing was compiled: dynamo is switched off, or skips the whole model")
        return first_step_s, max(0.0, more_s) if compiled else None

    def _score_ahead(self) -> None:
        """On a CPU, one evaluation batch by the uncompiled model before any step.

        Libraries keep the work memory of their first calls. Where smaller batches came before it, a step of mlp took 1
        to 2 % longer for as long as the process lived (docs/log.md, 2026-11-26).
        """
        if self._device.torch_device.type != "cpu":
            return
        # No inference mode: what a model keeps from its first call must be fit for training.
        with self._waterfall.phase("warm-up"), scoring(self._model, torch.no_grad):
            images, _ = next(iter(self._pipeline.test_batches()))
            self._model(as_weights(self._model, images))

    def _call(self, function: Callable[..., object], *arguments: torch.Tensor) -> float:
        begin = clock()
        function(*arguments)
        self._device.synchronize()
        return (clock() - begin) * NS

    def _more_at_first(self, function: Callable[..., object], *arguments: torch.Tensor) -> float:
        return self._call(function, *arguments) - self._call(function, *arguments)

    def _time_steps(self, count: int) -> list[int]:
        """The ns of at least so many steps, by rank 0's clock; a step of a replay lasts the mean of its steps."""
        self._losses.clear()
        each = self._program.steps
        calls = self._ranks.told(self._device.time_steps(self._one_step, -(-count // each)))
        return [duration // each for duration in calls for _ in range(each)]

    def _recapture(self) -> None:
        if self._program.capture is not None:
            self._program.capture()

    def _loss_trace(self) -> tuple[float, ...]:
        """Losses of the first steps from the initial state, dropout off, 6 digits: equal for variants of class A."""
        order = epoch_order(self._spec.seed, 0, self._pipeline.train_images)
        size = self._spec.cell.batch_size
        least, most = TRACE_STEPS
        wanted = order[: min(max(least, min(most, TRACE_IMAGES // size)), len(order) // size) * size]
        dropouts = [module for module in self._model.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
        for module in dropouts:  # and no more: a mode that is new to a compiled model would compile it again
            module.eval()
        self._recapture()
        self._snapshot.restore()
        losses = [self._program.step(*batch) for batch in self._batches(wanted)]
        for module in dropouts:
            module.train()
        self._recapture()
        found = self._ranks.gathered(torch.cat([loss.flatten() for loss in losses]).tolist())
        finite = itertools.takewhile(math.isfinite, map(fmean, zip(*found, strict=True)))
        return tuple(float(f"{loss:.6g}") for loss in finite)

    # ── session ──────────────────────────────────────────────────────────────────────────────────────────────────

    def block(self, seed: int) -> messages.BlockDone:
        """One block on fresh memory: a step that does not count, then ``block_steps`` that do.

        Args:
            seed: of the round: all members begin it on the same core; their spacers differ.
        """
        with self._waterfall.phase("session"), process.on_random_core(random.Random(seed), self._ranks.place):
            self._refresh(random.Random(f"{seed}/{self._spec.id}"))
            self._one_step()
            with self._no_compilation("the timing session"):
                durations = self._time_steps(self._block_steps)
            self._keep(SESSION, len(self._blocks_ns), durations)
            self._blocks_ns.append(durations)
        return messages.BlockDone(steps=len(durations), seconds=sum(durations) * NS)

    def _refresh(self, rng: random.Random) -> None:
        """Everything that a step reads or writes moves to fresh memory. Captured graphs are bound to theirs: with them
        it moves at times only, and they are captured again (inductor's by torch, which finds other addresses)."""
        captured = executions.captures_graphs(self._spec.variant, self._device.torch_device)
        if captured and len(self._blocks_ns) % RECAPTURE_BLOCKS:
            return
        state = [*state_tensors(self._model, self._optimizer), *self._program.tensors]
        self._state_relocator.move(state, rng)
        self._pipeline.relocate(self._input_relocator, rng)
        if captured:
            self._recapture()
            for _ in range(3):  # warm up, record, replay
                self._one_step()

    def end_session(self) -> messages.SessionEnded:
        """Puts the state back as it was built, for the training to come."""
        with self._waterfall.phase("session"):
            self._stream = iter(())  # the one before goes, and with it what a loader has in hand
            self._one_step = self._steady_step()
            self._snapshot.restore()
        steps_ns = list(itertools.chain.from_iterable(self._blocks_ns))
        return messages.SessionEnded(step_times=loop.step_times(steps_ns) if steps_ns else None)

    # ── training ─────────────────────────────────────────────────────────────────────────────────────────────────

    def train_epoch(self, epoch: int) -> messages.EpochDone:
        """One epoch over all images; the audit that work is conserved (rule 7) lies outside the timed span."""
        count = self._pipeline.train_images
        with self._waterfall.phase("audit"):
            order = epoch_order(self._spec.seed, epoch, count)
            if not bool((torch.bincount(order, minlength=count) == 1).all()):
                raise TrialError(f"epoch {epoch}: the order is not a permutation of the {count} images")
            self._orders.update(drawn := order.numpy().tobytes())
            if (digest := hashlib.sha256(drawn).digest()) in self._seen and count > FEW_IMAGES:
                raise TrialError(f"epoch {epoch}: the order is that of an earlier epoch")
            self._seen.add(digest)
        with self._no_compilation(f"epoch {epoch}"):
            batches, steps = self._batches(order), math.ceil(count / self._spec.cell.batch_size)
            trained = train_epoch(self._program.step, batches, steps, self._device.synchronize)
        seconds, loader_ns = (trained.ended - trained.started) * NS, trained.loader_ns()
        self._waterfall.add("loader wait", loader_ns)
        self._waterfall.add("train step", trained.ended - trained.started - loader_ns)
        with self._waterfall.phase("audit"):
            self._keep(TRAINING, epoch, trained.steps[1::2], trained.steps[0::2])
            loss = self._audit(epoch, trained)
        return messages.EpochDone(seconds=seconds, loader_s=loader_ns * NS, loss=loss, samples=count)

    def _audit(self, epoch: int, trained: TrainedEpoch) -> float:
        """Returns the epoch's mean loss.

        Raises:
            Diverged: it is not finite.
            TrialError: images were dropped or doubled, or no weight has changed.
        """
        if (images := sum(self._ranks.gathered(trained.images))) != (count := self._pipeline.train_images):
            raise TrialError(f"epoch {epoch}: {images} images were trained on, not {count}")
        loss = fmean(self._ranks.gathered(trained.mean_loss()))
        if not math.isfinite(loss):
            raise Diverged(f"the mean training loss of epoch {epoch + 1} is {loss}: lower the learning rate")
        if epoch == 0 and not self._snapshot.weights_changed():
            raise TrialError("no weight changed in the first epoch: is the loss connected to the parameters?")
        return loss

    def evaluate(self, *, other_set: bool = False) -> messages.Evaluated:
        """Scores every image of the set that the recipe scores, or of the other one."""
        pipeline, device = self._pipeline, self._device
        if other_set:  # opened only when asked for: whatever is timed holds one set of images to score
            swapped = not self._training.scored_on_training_images
            pipeline = self._open_pipeline(replace(self._training, scored_on_training_images=swapped))
            self._transfer(pipeline)
        count, kind = pipeline.test_images, torch.uint8 if self._spec.data.classes <= 256 else torch.int32
        with self._waterfall.phase("evaluation"), self._no_compilation("the evaluation"), scoring(self._model):
            predictions = torch.empty(count, dtype=kind, device=device.torch_device)
            score = evaluate(self._program.forward, pipeline.test_batches(), predictions, device.synchronize)
        if score.samples != count:
            raise TrialError(f"{score.samples} images were scored, not {count}")
        return score

    def profile(self, trace: str) -> messages.Profiled:
        """What bounds a step. State and weights are of no use after it."""
        self._stream = self._full_batches()
        trained = self._device, self._spec.variant, self._model, self._program, self._pipeline
        return profile.measure(trained, self._stream, self._block_steps, trace)

    def finish(self) -> messages.Finished:
        """Writes the raw samples; the last word. What follows (exit) is timed by the runner."""
        with self._waterfall.phase("teardown"):
            if self._samples and self._spec.samples_path and not self._ranks.rank:
                raw = io.BytesIO()  # written by one call: numpy's own error on a full disk does not say so
                np.save(raw, np.concatenate(self._samples))
                Path(self._spec.samples_path).write_bytes(raw.getbuffer())
            found = process.describe_numerics(self._spec.variant, self._device.torch_device)
            found["weights"], found["processes"] = str(next(self._model.parameters()).dtype), self._ranks.count
            found |= self._ranks.machines
            if self._program.skipped is not None:
                found["skipped_steps"] = int(self._program.skipped.item())
            host_peak, device_peak = process.tree_peak_bytes(self._ranks.launcher), self._device.peak_bytes()
        with self._waterfall.phase("extras"):
            cold = self._spec.variant.compile.cache == "warm" and executions.compiled_anew()
            measured, missed = self._extras() if self._spec.extras else (None, ())
        return messages.Finished(
            phases=self._waterfall.phases_s(),
            elapsed_s=self._waterfall.elapsed_s(),
            asleep_s=self._waterfall.asleep_s(),
            host_peak_bytes=host_peak,
            device_peak_bytes=device_peak,
            order_sha256=self._orders.hexdigest(),
            numerics=found,
            extras=measured,
            missed=(COLD,) * cold + missed,
        )

    def _extras(self) -> tuple[Extras, tuple[str, ...]]:
        self._stream = self._full_batches()  # the session's has ended
        step = self._steady_step()
        step_ms, alone_ms = self._ranks.step_times(self._device, step, self._trained, self._block_steps)
        trained = self._device, self._spec.variant, self._model, self._program, self._pipeline
        found, missed = extras.measure(*trained, self._stream, step)
        ceilings = self._ranks.gathered(found.ceiling_flops_s)  # each of its own threads, all at once
        ceiling = sum(filter(None, ceilings)) if all(ceilings) else None
        return replace(found, ceiling_flops_s=ceiling, rank_step_ms=step_ms, rank_alone_ms=alone_ms), missed

    @contextmanager
    def _no_compilation(self, where: str) -> Iterator[None]:
        before = executions.graphs_compiled()
        yield
        if (new := executions.graphs_compiled() - before) > 0:
            raise TrialError(f"{new} graphs were compiled inside {where}: its times are not those of steps")

    def _keep(self, phase: int, index: int, done_ns: Sequence[int], loaded_ns: Sequence[int] | int = 0) -> None:
        """Keeps raw samples: two stamps for each step of training, else durations."""
        rows = np.empty(len(done_ns), dtype=SAMPLES)
        for field, values in (("phase", phase), ("index", index), ("loaded_ns", loaded_ns), ("done_ns", done_ns)):
            rows[field] = values
        self._samples.append(rows)
