"""From a request to a reply: every error of a trial becomes a status with a reason, its traceback goes to the log."""

import contextlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import torch
from msgspec import structs

from mnist_bench.errors import BenchError, Diverged, TrialError
from mnist_bench.records import FailureKind, encode
from mnist_bench.running.protocol import Evaluate, Failed, Filled, Finished, Reply, Request, Unavailable, decode_request
from mnist_bench.table import shortened
from mnist_bench.worker.executions import is_compile_error
from mnist_bench.worker.loop import Waterfall, clock
from mnist_bench.worker.ranks import ALONE, Ranks
from mnist_bench.worker.trial import LiveTrial

REASON_LENGTH = 400
OURS = (f"{Path(__file__).parents[1]}/", f"{Path(torch.__file__).parent}/")  # frames that say nothing of the model
OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "Cannot allocate memory")


def serve(requests: BinaryIO, replies: BinaryIO, started_ns: int, *, launched: bool = False) -> None:
    """Answers requests until ``finish``, a failure, or the end of ``requests``; sleeps in between.

    Args:
        launched: as one of several ranks. Rank 0 alone reads, evaluates, and replies to what went well.
    """
    try:
        ranks = Ranks.join() if launched else ALONE
    except TrialError as error:
        replies.write(encode(Failed(kind="crashed", reason=str(error))))
        return
    waterfall = Waterfall(clock, started_ns)
    waterfall.add("import", clock() - started_ns)
    trial, said = LiveTrial(waterfall, ranks), b""
    while True:
        with waterfall.asleep():  # from the reply on: the runner, which it wakes, may be given this core
            if said:
                replies.write(said)
            line = ranks.heard(requests)
        if not line:
            return
        request = decode_request(line)
        if ranks.rank and isinstance(request, Evaluate):
            continue
        reply = answer(trial, request)
        if isinstance(reply, Failed):
            reply = ranks.failure(reply)
        said = encode(reply) if not ranks.rank or isinstance(reply, Failed) else b""
        if isinstance(reply, Failed | Filled | Finished | Unavailable):
            replies.write(said)
            return


def answer(trial: LiveTrial, request: Request) -> Reply:
    try:
        method: Callable[..., Reply] = getattr(trial, request.type)
        return method(**structs.asdict(request))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a model raises is a result
        with contextlib.suppress(OSError):  # the log's disk is full: then the reply alone says so
            traceback.print_exc()
        return Failed(kind=classify(error), reason=explain(error))


def classify(error: BaseException) -> FailureKind:
    """The status that an error of a trial stands for."""
    if isinstance(error, Diverged):
        return "diverged"
    if is_compile_error(error):
        return "compile_error"
    words = any(words in str(error) for words in OUT_OF_MEMORY) and isinstance(error, RuntimeError | OSError)
    return "oom" if words or isinstance(error, MemoryError | torch.OutOfMemoryError) else "failed"


def explain(error: BaseException) -> str:
    """One line: the error's own words, and where in the code outside this package and torch it was raised."""
    words, where = " ".join(str(error).split()) or "no message", ""
    if not isinstance(error, BenchError):
        words = f"{type(error).__name__}: {words}"
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(OURS)]
        where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    # In its middle: a compiler's error is the last line of a long message.
    # A lone surrogate (a path or a message of bytes that were no UTF-8) becomes its escape: no table can hold it.
    return (shortened(words, REASON_LENGTH) + where).encode("utf-8", "backslashreplace").decode()
