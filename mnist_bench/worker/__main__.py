"""A trial's process, from its fork on. ``python -m mnist_bench.worker``."""

import argparse
import atexit
import faulthandler
import os
import sys

from mnist_bench.running import guardian


def main() -> None:
    parser = argparse.ArgumentParser(description="Worker of mnist-bench; started by it, not by hand.")
    for name in ("requests", "replies", "lifeline", "started-ns"):  # descriptors, and the start by perf_counter_ns
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--scratch", required=True, help="folder that goes when the worker has ended")
    args = parser.parse_args()
    guardian.split(args.lifeline, (args.requests, args.replies), args.scratch)
    faulthandler.enable()
    for descriptor in (args.requests, args.replies):
        os.set_inheritable(descriptor, False)  # a compiler or loader process must not hold them open
    from mnist_bench.worker.server import serve  # torch: 1 to 2 s, after the fork

    # The reply pipe stays open to the very end of the process: the runner times the exit by its end of file.
    replies = os.fdopen(args.replies, "wb", buffering=0, closefd=False)
    serve(os.fdopen(args.requests, "rb"), replies, args.started_ns)
    # What else Python does at its end takes a second with torch (docs/log.md), for memory that goes with the process.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
