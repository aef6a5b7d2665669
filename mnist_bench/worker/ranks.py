"""A trial in several processes, the ranks of a data-parallel training (docs/measurement.md, decision 0033).

The worker is then torch's launcher (``launcher.py``), which starts them, each this program again. Rank 0 speaks with
the runner; the others hear each request from it and carry out the same. Between requests all of them sleep.
"""

import json
import os
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median
from typing import BinaryIO, TypeVar

import torch
from msgspec.structs import replace
from torch import distributed, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # of its C++ part
from torch.nn.parallel import DistributedDataParallel

from mnist_bench.analysis.keys import BETWEEN
from mnist_bench.errors import TrialError
from mnist_bench.records import YEAR_SECONDS, decode, encode
from mnist_bench.running.protocol import Failed
from mnist_bench.worker.devices import Device

LOOK_S = 0.25  # the launcher looks so often whether a rank has ended; each look costs it 0.3 ms
START_S = 60.0  # a rank that its launcher has started is there in less
NOTICE_S = 1.0  # so long an error waits to be told: it may come of another rank's death, which the launcher tells
MACHINES = "MNIST_BENCH_MACHINES"  # of rank 0's environment: what the machines of several are, as JSON
TROUBLE = "trouble"  # in their store: of whatever failed on a machine that is not the run's
TURNS = 5  # of steps with all-reduce, and without

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of how many processes this is. What one rank ``told`` or ``gathered``, all of them do at the same place.

    Args:
        place: among those of its machine.
        node: its machine; 0: the run's.
        machines: of several their names and processors, as is known on the run's.
    """

    rank: int = 0
    count: int = 1
    place: int = 0
    node: int = 0
    machines: dict[str, str] = field(default_factory=dict)

    @classmethod
    def join(cls) -> "Ranks":
        """Of a process that the launcher has started. A rank may sleep for as long as the others of its group work.

        Raises:
            TrialError: a rank on another machine has not started.
        """
        if int(os.environ["GROUP_WORLD_SIZE"]) > 1:
            _meet()
        distributed.init_process_group("gloo", timeout=timedelta(seconds=YEAR_SECONDS))
        place, node = int(os.environ["LOCAL_RANK"]), int(os.environ["GROUP_RANK"])
        machines = json.loads(os.environ.get(MACHINES, "{}"))
        return cls(distributed.get_rank(), distributed.get_world_size(), place, node, machines)

    @property
    def launcher(self) -> int | None:
        return os.getppid() if self.count > 1 else None

    def heard(self, requests: BinaryIO) -> bytes:
        """The next request, which rank 0 reads; nothing where it is gone. Where another is, the work will say so."""
        line = b"" if self.rank else requests.readline()
        with suppress(RuntimeError):
            return self.told(line)
        return line

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
        """What is to be told of an error; nothing, where the launcher ends this rank before. Of several, rank 0's; it
        also tells what began on another machine."""
        if self.count == 1:
            return reply
        where = f" on {socket.gethostname()}" if self.node else ""
        if self.rank:
            reply = replace(reply, reason=f"rank {self.rank}{where}: {reply.reason}")
        if self.node:
            with suppress(RuntimeError):  # the run's machine is gone
                _store().compare_set(TROUBLE, "", encode(reply).decode())
        time.sleep(NOTICE_S * (2 if self.rank else 1))
        if not self.machines:
            return reply
        if (store := _store()).check([TROUBLE]):
            return decode(store.get(TROUBLE), Failed)
        others = self.machines["nodes"].partition(BETWEEN)[2]
        lost = re.search(r"\bgloo\b|NCCL", reply.reason)
        return replace(reply, kind="crashed", reason=f"{others} is gone: {reply.reason}") if lost else reply

    def device(self, name: str) -> str:
        """This rank's GPU: the cell's, or the next ones."""
        kind, _, index = name.partition(":")
        return f"{kind}:{int(index or 0) + self.place}" if self.place and kind == "cuda" else name

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


def _store() -> TCPStore:
    """That of the launchers."""
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(*place, is_master=False, wait_for_workers=False)


def _meet() -> None:
    """Waits until all ranks have started: what torch does then knows no end."""
    store, ranks = _store(), [f"rank {number}" for number in range(int(os.environ["WORLD_SIZE"]))]
    store.set(f"rank {os.environ['RANK']}", "")
    deadline = time.monotonic() + START_S
    while missing := [each for each in ranks if not store.check([each])]:
        if store.check([TROUBLE]):
            raise TrialError(decode(store.get(TROUBLE), Failed).reason)
        if time.monotonic() > deadline:
            raise TrialError(f"{', '.join(missing)}: has not started within {START_S:g} s")
        time.sleep(LOOK_S)


ALONE = Ranks()
