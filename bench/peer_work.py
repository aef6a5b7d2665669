"""What ``bench.peers`` has every tool time: a training step of lenet5, batch 100, slower by the share PEERS_SLOW.

As a program: trains so many steps, ``python -m bench.peer_work 100``; given the flags of a worker of mnist_bench, it is
one.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

from mnist_bench import catalogue

BATCH_SIZE = 100
SLOW = float(os.environ.get("PEERS_SLOW", "0"))


def slowed(step: Callable[..., Any], share: float) -> Callable[..., Any]:
    """``step``, followed by a busy wait of a share of the time that it took."""

    def waits(*arguments: Any) -> Any:
        begin = perf_counter()
        result = step(*arguments)
        end = perf_counter() + share * (perf_counter() - begin)
        while perf_counter() < end:
            pass
        return result

    return waits


def training(share: float = SLOW) -> Callable[[], Any]:
    """A step of training on images made up, with the model and the optimizer of mnist_bench; called once already."""
    import torch

    from mnist_bench.machine.environment import available_cores
    from mnist_bench.records import ModelEntry
    from mnist_bench.worker.executions import assemble, plain_learning
    from mnist_bench.worker.models import build_model, build_optimizer

    torch.manual_seed(0)
    torch.set_num_threads(available_cores())
    model = build_model(ModelEntry(name="lenet5", model="lenet5")).train()
    step = assemble(model, plain_learning(build_optimizer(model, "adam", 0.001, fused=True))).step
    images, labels = torch.randn(BATCH_SIZE, 1, 28, 28), torch.randint(10, (BATCH_SIZE,))
    work = slowed(lambda: step(images, labels), share)
    work()
    return work


def worker() -> None:
    """The worker of mnist_bench, whose eager step is slowed; torch is loaded after its fork."""
    from mnist_bench.worker.__main__ import main

    load = catalogue.load

    def slow_load(entry: catalogue.Entry) -> Any:
        code = load(entry)
        if entry is not catalogue.EXECUTIONS["eager"]:
            return code

        def eager(*arguments: Any) -> Any:
            program = code(*arguments)
            return replace(program, step=slowed(program.step, SLOW))

        return eager

    catalogue.load = slow_load
    main()


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        step = training()
        for _ in range(int(sys.argv[1])):
            step()
    else:
        worker()
