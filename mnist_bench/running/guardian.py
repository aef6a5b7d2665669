"""A worker's guardian: ends the worker, with everything that it started, when the trial is over or the runner dies.

The runner starts one process; it forks. The child half becomes the worker. The parent half stays as the guardian: it
sleeps until the worker exits or the lifeline (a pipe whose other end only the runner holds) is closed, by the runner
or by the runner's death, then kills every descendant and removes the worker's scratch folder. As a child subreaper
(Linux) it also inherits processes whose parents are gone, so that a double fork does not escape it. If the guardian
itself is killed, PDEATHSIG ends the worker.
"""

import ctypes
import os
import select
import shutil
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SIGNALLED = 128  # exit code = SIGNALLED + signal number, as shells have it


def split(lifeline: int, worker_only: tuple[int, ...], scratch: str) -> None:
    """Forks. Returns in the worker-to-be alone; the guardian never returns.

    Args:
        lifeline: read end of the pipe whose closing means the end.
        worker_only: descriptors that the guardian must not hold (the runner waits for their closing).
        scratch: a folder of the worker's own, which the guardian removes in the end: a killed runner cannot.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler there must be for the wake-up byte to be written
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    guardian = os.getpid()
    worker = os.fork()
    if worker == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        end_with(guardian)
        for descriptor in (lifeline, wakeup_read, wakeup_write):
            os.close(descriptor)
        return
    for descriptor in worker_only:
        os.close(descriptor)
    code = _watch(worker, lifeline, wakeup_read)
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(code)


def end_with(parent: int) -> None:
    """Ends this process with its parent (Linux)."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _watch(worker: int, lifeline: int, wakeup: int) -> int:
    """Sleeps until the worker exits or the lifeline is closed; kills what is left; returns the exit code."""
    status: int | None = None
    while status is None:
        ready, _, _ = select.select([lifeline, wakeup], [], [])
        if wakeup in ready:
            os.read(wakeup, 4096)
            status = _reap(worker)
        elif lifeline in ready:
            _kill_descendants()
            return SIGNALLED + signal.SIGKILL
    _kill_descendants()
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else SIGNALLED + os.WTERMSIG(status)


def _reap(worker: int) -> int | None:
    """Waits for whatever has ended; returns the worker's status if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == worker:
            found = status


def _kill_descendants() -> None:
    """Kills every descendant, again and again until there is none: a dying parent hands its children up."""
    import psutil  # here: the worker must not pay for it at its start

    me = psutil.Process()
    while children := me.children(recursive=True):
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(children, timeout=1.0)
        _reap(-1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl failed")
