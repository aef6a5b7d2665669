"""The plain loop's process: prepares, executes blocks, nothing else. Started by ``bench.overhead``, not by hand."""

from __future__ import annotations

import argparse
import os
import random
from typing import TYPE_CHECKING, BinaryIO

from mnist_bench.running import guardian

if TYPE_CHECKING:  # torch is loaded after the fork, as in the real worker
    from bench.plain_loop import PlainLoop
    from mnist_bench.records import TrialSpec
    from mnist_bench.running.protocol import BlockDone, Prepared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("requests", "replies", "lifeline", "started-ns"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--scratch", required=True)
    args = parser.parse_args()
    guardian.split(args.lifeline, (args.requests, args.replies), args.scratch)
    serve(os.fdopen(args.requests, "rb"), os.fdopen(args.replies, "wb", buffering=0))


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answers until the runner closes ``requests``."""
    from mnist_bench.records import encode
    from mnist_bench.running.protocol import Block, EndSession, Open, Opened, Prepare, SessionEnded, decode_request

    loop: PlainLoop | None = None
    steps = 0
    while line := requests.readline():
        match decode_request(line):
            case Open(spec=spec):
                loop = build(spec)
                replies.write(encode(Opened()))
            case Prepare() if loop is not None:
                reply, steps = warm_up(loop)
                replies.write(encode(reply))
            case Block(seed=seed) if loop is not None:
                replies.write(encode(block(loop, steps, random.Random(seed))))
            case EndSession():
                replies.write(encode(SessionEnded(step_times=None)))
            case other:
                raise SystemExit(f"the plain loop cannot {other.type}")


def build(spec: TrialSpec) -> PlainLoop:
    """The model, the optimizer and both sets of images that the harness would use for ``spec``."""
    import torch

    from bench.plain_loop import PlainLoop
    from mnist_bench.catalogue import training_of
    from mnist_bench.worker import process
    from mnist_bench.worker.models import build_model, build_optimizer
    from mnist_bench.worker.pipelines import import_torchvision

    process.apply_numerics(spec.variant, torch.device("cpu"))
    training = training_of(spec.model, spec.recipe, spec.data)
    mnist = import_torchvision().datasets.MNIST
    train, test = (
        mnist(spec.data.root, train=wanted, download=False) for wanted in (True, training.scored_on_training_images)
    )
    torch.manual_seed(spec.seed)
    model = build_model(spec.model).train()
    return PlainLoop(
        model,
        build_optimizer(model, training.optimizer, training.lr, fused=spec.variant.fused_optimizer),
        train.data.unsqueeze(1),
        train.targets,
        test.data.unsqueeze(1),
        mean=training.mean,
        std=training.std,
        batch_size=spec.cell.batch_size,
        seed=spec.seed,
    )


def warm_up(loop: PlainLoop) -> tuple[Prepared, int]:
    """Warm by the harness's own rule, then back to the initial state, so that both sides start a session alike.

    An evaluation batch before all else, as the harness has it: libraries keep the work memory of their first calls, and
    malloc, left alone, blocks up to the size of the largest one freed so far (decision 0008).
    """
    import torch

    from mnist_bench.records import EVALUATION_BATCH_SIZE, Peaks
    from mnist_bench.running.protocol import Prepared
    from mnist_bench.worker import loop as timing
    from mnist_bench.worker.process import Snapshot

    snapshot = Snapshot(loop.model, loop.optimizer, torch.device("cpu"))
    loop.score(EVALUATION_BATCH_SIZE)
    durations = timing.settle(lambda count: [round(loop.train(1) * 1e9) for _ in range(count)])
    snapshot.restore()
    prepared = Prepared(
        pairable=True,
        device_name="cpu",
        parameters=sum(parameter.numel() for parameter in loop.model.parameters()),
        class_="A",
        loss_trace=(),
        time_to_first_step_s=0.0,
        compile_s=None,
        peaks=Peaks(host_bytes=0, device_bytes=None),  # nobody asks here
    )
    return prepared, timing.block_steps(durations)


def block(loop: PlainLoop, steps: int, rng: random.Random) -> BlockDone:
    """As the harness's block: fresh memory, a step that does not count, then those that do."""
    from mnist_bench.running.protocol import BlockDone
    from mnist_bench.worker.process import on_random_core

    with on_random_core(rng):  # first of all draws, as the harness: both sides take the same core
        loop.relocate(rng)
        loop.train(1)
        return BlockDone(steps=steps, seconds=loop.train(steps))


if __name__ == "__main__":
    main()
