"""What a stored figure can be at all: beyond, a file was edited, and a judge that took it would overflow. Pure."""

from __future__ import annotations

from mnist_bench.gate.records import SessionLogRatio

LARGEST_FIGURE = 1e100  # sums, squares and quotients of two such are finite
LARGEST_WHOLE = 2**63 - 1  # that an array holds
LARGEST_LOG_RATIO = 50.0  # of a nanosecond to a thousand years
LEAST_SD = 1e-9  # of a log ratio: its square is above 0


def is_figure(value: float) -> bool:
    """Whether a number can be one that was measured; false of NaN too."""
    return abs(value) <= (LARGEST_WHOLE if isinstance(value, int) else LARGEST_FIGURE)


def is_log_ratio(value: float) -> bool:
    """Whether it can be the log of a ratio of two times."""
    return -LARGEST_LOG_RATIO <= value <= LARGEST_LOG_RATIO


def session_problem(session: SessionLogRatio) -> str | None:
    """Why a session's ratio cannot have been measured; None: it can."""
    if not is_log_ratio(session.log_ratio):
        return f"log_ratio: {session.log_ratio} of seed {session.seed} is no ratio of two times"
    if not LEAST_SD <= session.sd <= LARGEST_LOG_RATIO:
        limits = f"it lies between 0 and {LARGEST_LOG_RATIO:g}"
        return f"sd: {session.sd} is no standard error of seed {session.seed}: {limits}"
    return None
