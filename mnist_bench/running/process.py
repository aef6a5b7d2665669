"""A worker in a process of its own on this machine, and what interrupts the wait for it."""

import contextlib
import os
import re
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from multiprocessing.connection import wait
from pathlib import Path
from time import perf_counter_ns
from types import FrameType
from typing import Any, Self

from mnist_bench.catalogue import EXECUTIONS
from mnist_bench.disk.files import open_regular
from mnist_bench.errors import Interrupted, WorkerError
from mnist_bench.records import CELL_VARIABLE, TrialSpec, encode
from mnist_bench.running.guardian import SIGNALLED
from mnist_bench.running.protocol import Failed, Reply, Request, decode_reply

EXIT_SECONDS = 20.0  # a worker that has said its last word may take so long to exit
DEATH_SECONDS = 5.0  # and its guardian so long to tell how it died
LINE_LIMIT = 1 << 20
# glibc gives freed memory back to the kernel by thresholds that move with what a process happened to free before: of
# two identical processes one may fault 2,700 pages a step and take 1.5 times as long (docs/decisions/0008). Fixed, at
# the largest values that it takes for mmap and far above a trial's needs for the heap's top, none does.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NO_SPACE = "No space left on device"
RANK_GONE = r"^rank \d+ of \d+: (?=gone$)"  # by the launcher of several ranks, of the first that died
# Of a worker's environment, what the ranks on other machines get too.
SHARED = (*MALLOC, CELL_VARIABLE, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")
NS = 1e-9


class Interrupts:
    """Within ``with Interrupts() as interrupts:`` a signal sets ``requested`` and makes ``descriptor`` readable.

    A wait that selects on ``descriptor`` wakes up; nothing is raised inside a write to a run's folder. On the second
    signal ``last_word`` is called and the process exits with 130 there and then; the workers' lifelines close with it.
    A signal that is ignored (of ``nohup``, say) stays so.
    """

    def __init__(self) -> None:
        self.requested = False
        self.last_word: Callable[[], None] = lambda: None
        self.descriptor, self._write = os.pipe()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        heard = [each for each in SIGNALS if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN]
        self._before = {each: signal.signal(each, self._handle) for each in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.descriptor)
        os.close(self._write)

    def request(self) -> None:
        """Interrupts whoever waits, as a signal would."""
        self.requested = True
        os.write(self._write, b"!")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            try:
                self.last_word()
            finally:
                os._exit(130)
        self.request()


class LocalWorker:
    """A fresh process, by exec, for one trial. It works only inside ``call``; close it in the end.

    Args:
        log: the file that takes whatever the worker prints; no link is followed there.
        environ: the parent's environment.
        timeout_s: of time with the token, over all calls.
        root: the folder that it is started in, which comes first on its path (None: the parent's).
        python: its interpreter (empty: the parent's).

    Raises:
        WorkerError: it cannot be started; nothing of it is left.
    """

    def __init__(
        self,
        spec: TrialSpec,
        log: Path,
        environ: Mapping[str, str],
        timeout_s: float,
        interrupts: Interrupts,
        root: Path | None = None,
        python: str = "",
    ) -> None:
        self.spec, self._log, self._timeout_s, self._interrupts = spec, log, timeout_s, interrupts
        self._python = python or sys.executable
        self._buffer = b""
        self.token_ns = 0
        self.exited = True
        self.started_ns = perf_counter_ns()
        with contextlib.ExitStack() as undone, contextlib.ExitStack() as handed:
            try:
                self._scratch = tempfile.mkdtemp(prefix="mnist-bench-")
                undone.callback(shutil.rmtree, self._scratch, ignore_errors=True)
                requests, self._requests = _pipe(handed, undone)
                self._replies, replies = _pipe(undone, handed)
                lifeline, self._lifeline = _pipe(handed, undone)
                passed = requests.fileno(), replies.fileno(), lifeline.fileno()
                output = open_regular(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                handed.callback(os.close, output)
                self._log_start = os.fstat(output).st_size  # what an earlier attempt printed says nothing of this one
                self._process = subprocess.Popen(
                    self._command(*passed),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=worker_environment(environ, spec, self._scratch, [] if root else uninstalled_package()),
                    cwd=root,
                    pass_fds=passed,
                    start_new_session=True,  # the terminal's Ctrl-C is the runner's to act on
                )
            except OSError as error:
                raise WorkerError(f"{spec.id}: its worker cannot be started: {error}") from error
            undone.pop_all()

    def _command(self, requests: int, replies: int, lifeline: int) -> list[str]:
        pipes = [f"--requests={requests}", f"--replies={replies}", f"--lifeline={lifeline}"]
        known = [f"--started-ns={self.started_ns}", f"--scratch={self._scratch}"]
        if (count := self.spec.variant.processes) > 1:  # a worker of an older version knows no such flag
            known.append(f"--processes={count}")
        if self.spec.rendezvous:
            known += [f"--nodes={self.spec.variant.nodes}", f"--wait-seconds={self.spec.join_seconds}"]
            known.append(f"--rendezvous={self.spec.rendezvous}")
        return [self._python, "-m", "mnist_bench.worker", *pipes, *known]

    @property
    def pid(self) -> int:
        """Of the guardian, whose descendant the worker is."""
        return self._process.pid

    def call(self, request: Request) -> Reply:
        """Hands the token over, sleeps until the reply; a dead or silent worker is a ``Failed`` reply.

        Raises:
            Interrupted: the user wants to stop; the worker may be in the middle of something.
            WorkerError: the disk is full, which is no fault of the trial's.
        """
        begin = self.started_ns if self.token_ns == 0 else perf_counter_ns()
        try:
            line = self._exchange(encode(request), begin)
            reply = decode_reply(line)
        except TimeoutError:
            reply = Failed(
                kind="timeout",
                reason=f"no answer to {request.type} within the trial's {self._timeout_s:g} s: it hangs, or it is "
                f"slow; raise limits.timeout_seconds or --timeout (log: {self._log.name})",
            )
        except (BrokenPipeError, EOFError):
            reply = self._died(request)
        except ValueError as error:
            reply = Failed(kind="failed", reason=f"the worker broke the protocol: {error}")
        finally:
            self.token_ns += perf_counter_ns() - begin
        if isinstance(reply, Failed):
            self.kill()
            if NO_SPACE in reply.reason + self._tail():
                raise WorkerError(f"the disk is full ({self.spec.id} has not finished): make room")
        return reply

    def close(self) -> int:
        """Waits for the exit after the last reply, ends whatever is left; returns the ns waited (token time)."""
        begin = perf_counter_ns()
        self._requests.close()
        # Its end of file: the last descriptor went with the process.
        self.exited = bool(wait([self._replies.fileno()], EXIT_SECONDS))
        waited = perf_counter_ns() - begin
        self.token_ns += waited
        self.kill()
        return waited

    def kill(self) -> None:
        """Ends the worker with everything that it started, by closing the lifeline; idempotent."""
        for pipe in (self._lifeline, self._requests, self._replies):
            pipe.close()
        try:
            self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:  # a guardian that cannot act (a process in uninterruptible sleep)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _exchange(self, message: bytes, begin_ns: int) -> bytes:
        os.write(self._requests.fileno(), message)
        deadline_ns = begin_ns + int(self._timeout_s / NS) - self.token_ns
        while b"\n" not in self._buffer:
            remaining = (deadline_ns - perf_counter_ns()) * NS
            ready = remaining > 0 and wait([self._replies.fileno(), self._interrupts.descriptor], remaining)
            if self._interrupts.requested:
                raise Interrupted("interrupted")
            if not ready:
                raise TimeoutError
            chunk = os.read(self._replies.fileno(), 65536)
            if not chunk or len(self._buffer) > LINE_LIMIT:
                raise EOFError
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _died(self, request: Request) -> Failed:
        """What the exit code and the log's end say of a worker that is gone."""
        # Its pipes close before its guardian has learnt how it died: ended now, it would say SIGKILL, which was ours.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DEATH_SECONDS)
        self.kill()
        code, tail = self._process.returncode, self._tail()
        if any(words in tail for words in ("bad_alloc", "MemoryError")):
            return Failed(kind="oom", reason=f"out of memory in {request.type}: raise limits.memory_gib")
        rank = "".join(re.findall(RANK_GONE, tail, re.MULTILINE)[-1:])
        number = code - SIGNALLED if code > SIGNALLED else -code
        how, hint = f"exited with {code}", ""
        if code not in (0, 1) and number in set(signal.Signals):
            how = f"killed by {signal.Signals(number).name}"
            hint = "; the kernel's out-of-memory killer, perhaps" if number == signal.SIGKILL else ""
        return Failed(kind="crashed", reason=f"{rank}{how} in {request.type}{hint} (log: {self._log.name})")

    def _tail(self, size: int = 4096) -> str:
        with self._log.open("rb") as file:
            file.seek(max(self._log_start, self._log.stat().st_size - size))
            return file.read().decode(errors="replace")


def take_part(rendezvous: str, environ: Mapping[str, str]) -> int:
    """Launches this machine's ranks of the next trial of a run on another one; nothing is left of them.

    Returns:
        0: the trial is over. Anything else: the launcher has failed.
    """
    with contextlib.ExitStack() as kept, contextlib.ExitStack() as ours:
        folder = tempfile.TemporaryDirectory(prefix="mnist-bench-", ignore_cleanup_errors=True)
        scratch = kept.enter_context(folder)  # its guardian removes it too, should we be killed
        lifeline, _ = _pipe(kept, ours)
        pipes = ["--requests=0", "--replies=1", "--started-ns=0", f"--lifeline={lifeline.fileno()}"]
        where = [f"--scratch={scratch}", f"--rendezvous={rendezvous}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "mnist_bench.worker", "--join", *pipes, *where],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # The end of a trial is the end of its store, of which torch would tell at length.
            env={"TORCH_CPP_LOG_LEVEL": "ERROR", **environ, **_everywhere(environ, uninstalled_package())},
            pass_fds=[lifeline.fileno()],
            start_new_session=True,  # the terminal's Ctrl-C ends us, and our end of the lifeline with us
        )
        kept.callback(process.wait)
        return process.wait()


def uninstalled_package() -> list[str]:
    """This package's place where it is on nobody's path but ours (it was started from its own checkout)."""
    place = str(Path(__file__).resolve().parents[2])
    found_anyway = {*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()}
    return [] if place in found_anyway else [place]


def worker_environment(
    environ: Mapping[str, str], spec: TrialSpec, scratch: str, path: Sequence[str] = ()
) -> dict[str, str]:
    """The worker's environment: path, threads, compiler's caches, no fallback to the CPU; the rest is the parent's.

    Args:
        scratch: an empty folder of its own.
        path: what its path begins with. The folder that it is started in is not on it: that may be a stranger's.
    """
    own = {**_everywhere(environ, path), CELL_VARIABLE: spec.cell.id}
    warm = spec.variant.compile.cache == "warm"
    if not warm or spec.side is None:  # a side of a check has caches of its own, which are kept as long as the check
        caches = _kept_caches(environ) if warm else Path(spec.cache_dir or scratch)
        own["TORCHINDUCTOR_CACHE_DIR"], own["TRITON_CACHE_DIR"] = str(caches / "inductor"), str(caches / "triton")
    if EXECUTIONS[spec.variant.execution].compiles:
        own["TMPDIR"] = scratch  # torch keeps precompiled headers there: a cold start has none, and leaves none
    if spec.variant.threads is not None:
        own["OMP_NUM_THREADS"] = own["MKL_NUM_THREADS"] = str(spec.variant.threads)
    if spec.variant.deterministic:
        own["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # torch asks for it
    return {**environ, **own}


def _everywhere(environ: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    named = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]  # an empty one is the folder
    return {
        **{name: value for name, value in MALLOC.items() if name not in environ},
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join([*path, *named]),
        "PYTHONUNBUFFERED": "1",  # what a model printed before a crash is in the log
        "PYTORCH_ENABLE_MPS_FALLBACK": "0",  # a cell of a GPU fails where the CPU would do its work
    }


def _kept_caches(environ: Mapping[str, str]) -> Path:
    """The compiler's, of all trials that ask for warm ones."""
    from mnist_bench.data.mnist import cache_root  # late: numpy comes with it

    return cache_root(environ) / "compiled"


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    """A pipe whose ends are closed with these stacks."""
    ends = os.pipe()
    return reader.enter_context(FileIO(ends[0], "rb")), writer.enter_context(FileIO(ends[1], "wb"))
