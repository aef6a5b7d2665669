"""Reads requests, answers each, sleeps in between. ``python -m mnist_bench.worker``."""

import argparse
import faulthandler
import os
from collections.abc import Sequence
from typing import BinaryIO

from mnist_bench.run import guardian


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Worker of mnist-bench; started by it, not by hand.")
    for name in ("requests", "replies", "lifeline", "started-ns"):  # descriptors, and the start by perf_counter_ns
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--scratch", required=True, help="folder that goes when the worker has ended")
    args = parser.parse_args(argv)
    guardian.split(args.lifeline, (args.requests, args.replies), args.scratch)
    faulthandler.enable()
    for descriptor in (args.requests, args.replies):
        os.set_inheritable(descriptor, False)  # a compiler or loader process must not hold them open
    # The reply pipe stays open to the very end of the process: the runner times the exit by its end of file.
    replies = os.fdopen(args.replies, "wb", buffering=0, closefd=False)
    serve(os.fdopen(args.requests, "rb"), replies, args.started_ns)


def serve(requests: BinaryIO, replies: BinaryIO, started_ns: int) -> None:
    """Answers requests until ``finish``, a failure, or the end of ``requests``."""
    from mnist_bench.records import encode
    from mnist_bench.run.protocol import Failed, Finished, Unavailable, decode_request
    from mnist_bench.worker.clocks import Waterfall, clock
    from mnist_bench.worker.server import Server  # torch: 1 to 2 s, after the fork

    waterfall = Waterfall(clock, started_ns)
    waterfall.add("import", clock() - started_ns)
    server = Server(waterfall)
    while True:
        with waterfall.asleep():
            line = requests.readline()
        if not line:
            return
        reply = server.answer(decode_request(line))
        replies.write(encode(reply))
        if isinstance(reply, Failed | Finished | Unavailable):
            return


if __name__ == "__main__":
    main()
