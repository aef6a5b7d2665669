"""torch's launcher of a trial's ranks, on the run's machine and on others that join it (decisions 0033 and 0038).

The run's machine keeps a store of torch's. Others say in it what they are; when all are there, each starts its ranks,
which meet as under ``torchrun`` (its static rendezvous: every machine has a number, the run's has 0).
"""

import json
import logging
import os
import socket
import sys
import time
from argparse import Namespace
from datetime import timedelta
from typing import NoReturn

import msgspec
import psutil
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # of its C++ part
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mnist_bench import __version__
from mnist_bench.analysis.keys import BETWEEN
from mnist_bench.errors import TrialError
from mnist_bench.machine import environment
from mnist_bench.records import CELL_VARIABLE, YEAR_SECONDS, decode, encode
from mnist_bench.running.guardian import SIGNALLED
from mnist_bench.running.process import SHARED
from mnist_bench.running.protocol import Failed
from mnist_bench.worker.ranks import LOOK_S, MACHINES, TROUBLE

CALL, JOINED, BEGIN, END = "call", "joined", "begin", "end"  # keys of the store; END is never set
STORE_S = 10.0  # a store that is there answers in less


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What the run's machine says to those that come. ``each``: ranks of a machine."""

    cell: str
    nodes: int
    each: int
    wait_s: float
    environ: dict[str, str]


class Machine(msgspec.Struct, frozen=True):
    host: str
    cpu: str
    software: str

    @classmethod
    def this(cls) -> "Machine":
        found = environment.describe(os.environ)
        software = f"torch {torch.__version__}, mnist_bench {__version__}"
        return cls(socket.gethostname(), f"{found.cpu} ({found.cores} cores)", software)


def launch(args: Namespace) -> NoReturn:
    """Starts the ranks, waits for their end, and ends as the first of this machine's did that failed.

    Args:
        args: of the worker. Its pipes become the ranks' input and output: their launcher passes no other descriptors.
    """
    os.dup2(args.requests, 0)
    os.dup2(args.replies, 1)
    sys.stdout = sys.stderr
    environ = {name: os.environ[name] for name in SHARED if name in os.environ}
    each = args.processes // args.nodes
    call = Call(cell=os.environ[CELL_VARIABLE], nodes=args.nodes, each=each, wait_s=args.wait_seconds, environ=environ)
    code = 0
    try:
        store = _gathered(call, args.rendezvous)
        if found := _start(call, store, 0, args.started_ns, args.scratch):
            print(f"rank {found[0]} of {args.processes}: gone", flush=True)  # the runner reads it in the log
            code = found[1].exitcode if found[1].exitcode > 0 else SIGNALLED - found[1].exitcode
    except (TrialError, RuntimeError) as error:  # torch's own: no port, or a machine left before its ranks had started
        first = str(error).partition("\n")[0]  # what follows is of its own code
        os.write(1, encode(Failed(kind="failed", reason=f"{args.rendezvous}: {first}")))
    os._exit(code)


def _gathered(call: Call, rendezvous: str) -> TCPStore:
    """The store of a trial whose machines are all there.

    Raises:
        TrialError: one does not come in time, or is not fit.
    """
    host, _, port = rendezvous.rpartition(":")
    patience = timedelta(seconds=call.wait_s)
    store = TCPStore(host, int(port), is_master=True, timeout=patience, wait_for_workers=False, multi_tenant=True)
    if call.nodes == 1:
        return store
    machines = [Machine.this()]
    store.set(CALL, encode(call).decode())
    for number in range(1, call.nodes):
        try:
            store.wait([str(number)], patience)
        except RuntimeError as error:
            who = ", ".join(machine.host for machine in machines)
            words = f"{number} of {call.nodes} machines after {call.wait_s:g} s ({who})"
            raise TrialError(f"{words}: start `mnist-bench join {rendezvous}` on another") from error
        machines.append(decode(store.get(str(number)), Machine))
    if other := next((each for each in machines if each.software != machines[0].software), None):
        here = f"{machines[0].host} has {machines[0].software}"
        raise TrialError(f"{other.host} has {other.software}, and {here}: install the same on both")
    known = {"nodes": [each.host for each in machines], "cpus": [each.cpu for each in machines]}
    os.environ[MACHINES] = json.dumps({name: BETWEEN.join(values) for name, values in known.items()})
    _bind(host, int(port))
    store.set(BEGIN, "")
    return store


def join(rendezvous: str, scratch: str) -> NoReturn:
    """Takes part in the next trial whose run keeps this rendezvous; ends with it."""
    sys.stdout = sys.stderr
    logging.disable()  # of torch, which has a traceback for the end of a trial
    host, _, port = rendezvous.rpartition(":")
    while not _bind(host, int(port)):
        time.sleep(LOOK_S)
    try:
        store = TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=STORE_S), wait_for_workers=False)
        call, number, own = decode(store.get(CALL), Call), store.add(JOINED, 1), Machine.this()
        store.set(str(number), encode(own).decode())
        # One too many waits for the next trial.
        store.wait([BEGIN if number < call.nodes else END], timedelta(seconds=YEAR_SECONDS))
        print(f"{call.cell}: machine {number + 1} of {call.nodes}", flush=True)
        os.environ.update({name: call.environ[name] for name in SHARED if name in call.environ})
        if found := _start(call, store, number, time.perf_counter_ns(), scratch):
            how = f"exited with {code}" if (code := found[1].exitcode) > 0 else f"killed by {found[1].signal_name()}"
            words = f"rank {found[0]} of {call.nodes * call.each} on {own.host}: {how}"
            print(words, flush=True)
            store.set(TROUBLE, encode(Failed(kind="crashed", reason=words)).decode())
    except RuntimeError as error:  # the store is gone, and the trial with it
        print(f"{rendezvous}: the trial is over, or was none: {str(error).partition(chr(10))[0]}", flush=True)
    os._exit(0)


def _start(
    call: Call, store: TCPStore, number: int, started_ns: int, scratch: str
) -> tuple[int, ProcessFailure] | None:
    """Starts this machine's ranks, waits for their end; the first that failed."""
    config = LaunchConfig(
        min_nodes=call.nodes,
        max_nodes=call.nodes,
        nproc_per_node=call.each,
        run_id="trial",
        rdzv_backend="static",
        rdzv_endpoint=f"{store.host}:{store.port}",
        rdzv_configs={"rank": number, "timeout": int(call.wait_s) + 1},
        max_restarts=0,
        monitor_interval=LOOK_S,
        logs_specs=DefaultLogsSpecs(log_dir=scratch),
    )
    pipes = ("--requests=0", "--replies=1", f"--started-ns={started_ns}", f"--launcher={os.getpid()}")
    try:
        elastic_launch(config, sys.executable)("-m", "mnist_bench.worker", *pipes)
    except ChildFailedError as error:
        return error.get_first_failure()
    return None


def _bind(host: str, port: int) -> bool:
    """Has ranks talk by the network that leads to the rendezvous, where the user names no other; whether it is there.

    Theirs would else be the one of the machine's name, which may be its loopback.
    """
    try:
        with socket.create_connection((host, port), STORE_S) as found:
            own = found.getsockname()[0]
    except OSError:
        return False
    for name, known in psutil.net_if_addrs().items():
        if own in [each.address for each in known]:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
    return True
