"""A trial's process, from its fork on. ``python -m mnist_bench.worker``."""

import argparse
import atexit
import faulthandler
import os
import sys

from mnist_bench.records import YEAR_SECONDS
from mnist_bench.running import guardian


def main() -> None:
    parser = argparse.ArgumentParser(description="Worker of mnist-bench; started by it, not by hand.")
    for name in ("requests", "replies", "started-ns"):  # descriptors, and the start by perf_counter_ns
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--lifeline", type=int, help="descriptor whose closing means the end")
    parser.add_argument("--scratch", help="folder that goes when the worker has ended")
    parser.add_argument("--processes", type=int, default=1, help="of the trial: of several this one is the launcher")
    parser.add_argument("--nodes", type=int, default=1, help="machines of the trial")
    parser.add_argument("--rendezvous", default="localhost:0", help="where they meet")
    parser.add_argument("--wait-seconds", type=float, default=YEAR_SECONDS, help="for each of them")
    parser.add_argument("--join", action="store_true", help="launch ranks of a trial of another machine")
    parser.add_argument("--launcher", type=int, help="of one of several processes: the id of that which started it")
    args = parser.parse_args()
    if args.launcher is None:
        guardian.split(args.lifeline, (args.requests, args.replies), args.scratch)
    else:
        guardian.end_with(args.launcher)
        args.requests, args.replies = _unmasked(args.requests, args.replies)
    faulthandler.enable()
    if args.join or args.processes > 1:
        from mnist_bench.worker import launcher  # torch: 1 to 2 s, after the fork

        if args.join:
            launcher.join(args.rendezvous, args.scratch)
        launcher.launch(args)
    for descriptor in (args.requests, args.replies):
        os.set_inheritable(descriptor, False)  # a compiler or loader process must not hold them open
    from mnist_bench.worker.server import serve

    # The reply pipe stays open to the very end of the process: the runner times the exit by its end of file.
    replies = os.fdopen(args.replies, "wb", buffering=0, closefd=False)
    serve(os.fdopen(args.requests, "rb"), replies, args.started_ns, launched=args.launcher is not None)
    # What else Python does at its end takes a second with torch (docs/log.md), for memory that goes with the process.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _unmasked(requests: int, replies: int) -> tuple[int, int]:
    """The pipes of a rank, which came as its input and output, under other numbers; what it prints goes to the log."""
    own = os.dup(requests), os.dup(replies)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, requests)
    os.dup2(sys.stderr.fileno(), replies)
    return own


if __name__ == "__main__":
    main()
