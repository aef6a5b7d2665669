"""A trial in several processes, the ranks of a data-parallel training (docs/measurement.md, decision 0033).

The worker is then torch's launcher, which imports no model. It starts the ranks, each this program again. Rank 0 speaks
with the runner; the others hear each request from it and carry out the same. Between requests all of them sleep.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import NoReturn, TypeVar

import torch
from msgspec.structs import replace
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mnist_bench.records import YEAR_SECONDS
from mnist_bench.running.guardian import SIGNALLED
from mnist_bench.running.protocol import Failed
from mnist_bench.worker.devices import Device

LOOK_S = 0.25  # the launcher looks so often whether a rank has ended; each look costs it 0.3 ms
NOTICE_S = 1.0  # so long an error waits to be told: it may come of another rank's death, which the launcher tells
TURNS = 5  # of steps with all-reduce, and without

T = TypeVar("T")


def launch(requests: int, replies: int, started_ns: int, processes: int, scratch: str) -> NoReturn:
    """Starts the ranks with torch's launcher, waits for their end, and ends as the first of them did that failed.

    Args:
        requests, replies: descriptors, which the ranks get as their input and output: their launcher passes no others.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.dup2(requests, 0)
    os.dup2(replies, 1)
    sys.stdout = sys.stderr
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a port of its own
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=LOOK_S,
        logs_specs=DefaultLogsSpecs(log_dir=scratch),
    )
    pipes = ("--requests=0", "--replies=1", f"--started-ns={started_ns}", f"--launcher={os.getpid()}")
    code = 0
    try:
        elastic_launch(config, sys.executable)("-m", "mnist_bench.worker", *pipes)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(f"rank {rank} of {processes}: gone", flush=True)  # the runner reads it in the log
        code = failure.exitcode if failure.exitcode > 0 else SIGNALLED - failure.exitcode
    os._exit(code)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this is. What one rank ``told`` or ``gathered``, all of them do at the same place."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls) -> "Ranks":
        """Of a process that the launcher has started. A rank may sleep for as long as the others of its group work."""
        distributed.init_process_group("gloo", timeout=timedelta(seconds=YEAR_SECONDS))
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def launcher(self) -> int | None:
        return os.getppid() if self.count > 1 else None

    def told(self, value: T) -> T:
        """What rank 0 has."""
        if self.count == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def gathered(self, value: T) -> list[T]:
        """What each rank has."""
        values = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(values, value)
        return values

    def failure(self, reply: Failed) -> Failed:
        """What is to be told of an error; nothing, where the launcher ends this rank before. Of several, rank 0's."""
        if self.count == 1:
            return reply
        time.sleep(NOTICE_S * (2 if self.rank else 1))
        return replace(reply, reason=f"rank {self.rank}: {reply.reason}") if self.rank else reply

    def device(self, name: str) -> str:
        """This rank's GPU: the cell's, or the next ones."""
        kind, _, index = name.partition(":")
        return f"{kind}:{int(index or 0) + self.rank}" if self.rank and kind == "cuda" else name

    def share(self, order: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Of each batch of an order this rank's images, as many as every other rank's."""
        if self.count == 1:
            return order
        return torch.cat([batch.tensor_split(self.count)[self.rank] for batch in order.split(batch_size)])

    def parallel(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model as it trains: rank 0's weights, and gradients that are the mean of all ranks'."""
        if self.count == 1:
            return model
        if device.type == "cpu":
            return DistributedDataParallel(model)
        torch.cuda.set_device(device)
        return DistributedDataParallel(model, [device], process_group=distributed.new_group(backend="nccl"))

    def step_times(
        self, device: Device, step: Callable[[], None], model: nn.Module, count: int
    ) -> list[tuple[float, ...]]:
        """Of each rank the median ms of a step, and of one without its all-reduce, in turns of ``count`` steps; weights
        are of no use afterwards. Nothing of a process that is alone."""
        if not isinstance(model, DistributedDataParallel):
            return [(), ()]
        whole, alone = list[int](), list[int]()
        for _ in range(TURNS):
            whole += device.time_steps(step, count + 1)[1:]  # the first one waits until the others are there
            with model.no_sync():
                alone += device.time_steps(step, count + 1)[1:]
        found = self.gathered([round(median(each) * 1e-6, 4) for each in (whole, alone)])
        return [*zip(*found, strict=True)]


ALONE = Ranks()
