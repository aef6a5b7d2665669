"""The bars and the statistics that they are held against: pure functions of samples.

Every ratio comes in as its natural logarithm. What a sample is too small to show counts as a missed bar.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnist_bench import stats
from mnist_bench.analysis.ratios import SpeedUp

AA_SD = 0.015  # of ln ratio between sessions of the same variant under two names
AA_START = 0.005  # of ln ratio, started first / other
AA_HOLDING = 0.8  # of the sessions' 95 % intervals must hold 1.0
STEP_RATIO = 1.01  # harness / plain loop, seconds per step
STEP_RATIO_HIGH = 1.02  # the upper bound of its 95 % interval
OUTSIDE_SHARE = 0.01  # of an epoch, outside the steps
TUTORIAL_RATIO = {"lenet5": 4.0, "cnn": 2.5, "mlp": 1.2}  # seconds of the tutorial's loops / of the best, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One demand, what was measured of it, and whether it holds."""

    what: str
    measured: str
    limit: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of log ratios: None where there are too few (2 for a deviation, 3 for an interval of the mean)."""

    count: int
    mean: float
    sd: float | None
    standard_error: float | None
    low: float | None  # bounds of the mean's 95 % t interval
    high: float | None


def spread(logs: Sequence[float]) -> Spread:
    """Mean, standard deviation and the mean's error of a non-empty sample."""
    interval = stats.t_interval(logs)
    sd = float(np.std(logs, ddof=1)) if len(logs) > 1 else None
    return Spread(
        count=len(logs),
        mean=interval.estimate,
        sd=sd,
        standard_error=None if sd is None else sd / math.sqrt(len(logs)),
        low=interval.low,
        high=interval.high,
    )


def agreement_bars(model: str, sessions: Sequence[SpeedUp]) -> tuple[Bar, Bar, Bar]:
    """The A/A bars: spread, mean, and how many stated intervals hold 1.0."""
    found = spread([math.log(session.interval.estimate) for session in sessions])
    holding = sum(holds_one(session) for session in sessions)
    least = math.ceil(AA_HOLDING * len(sessions))
    return (
        Bar(
            what=f"{model}: sd of ln ratio between sessions",
            measured=percent(found.sd),
            limit=f"<= {AA_SD:.1%}",
            holds=found.sd is not None and found.sd <= AA_SD,
        ),
        Bar(
            what=f"{model}: mean of ln ratio is within its error of 0",
            measured=f"{percent(found.mean)} +- {percent(found.standard_error)}, "
            f"95 %: {percent(found.low)} to {percent(found.high)}",
            limit="holds 0",
            holds=found.low is not None and found.high is not None and found.low <= 0 <= found.high,
        ),
        Bar(
            what=f"{model}: 95 % intervals that hold 1.0",
            measured=f"{holding} of {len(sessions)}",
            limit=f">= {least} of {len(sessions)}",
            holds=holding >= least,
        ),
    )


def start_bar(model: str, logs: Sequence[float]) -> Bar:
    """The process that is started first / the other, one value a session: their mean is 0, or near it."""
    found = spread(logs)
    return Bar(
        what=f"{model}: mean of ln ratio, started first / other",
        measured=f"{percent(found.mean)} +- {percent(found.standard_error)}",
        limit=f"within its standard error of 0, or within {AA_START:.1%}",
        holds=found.standard_error is not None and abs(found.mean) <= max(found.standard_error, AA_START),
    )


def holds_one(session: SpeedUp) -> bool:
    """Whether the interval that a table would state holds 1.0; no interval holds nothing."""
    return (
        session.interval.low is not None
        and session.interval.high is not None
        and session.interval.low <= 1.0 <= session.interval.high
    )


def step_bars(model: str, logs: Sequence[float]) -> tuple[Bar, Bar]:
    """Harness / plain loop, one value a process pair: Hodges-Lehmann estimate and upper bound."""
    ratio = stats.hodges_lehmann(logs).exp()
    return (
        Bar(
            what=f"{model}: step of the harness / of the plain loop ({len(logs)} process pairs)",
            measured=f"{ratio.estimate:.4f}",
            limit=f"<= {STEP_RATIO}",
            holds=ratio.estimate <= STEP_RATIO,
        ),
        Bar(
            what=f"{model}: the upper bound of its 95 % interval",
            measured="unknown (fewer than 6 pairs)" if ratio.high is None else f"{ratio.high:.4f}",
            limit=f"<= {STEP_RATIO_HIGH}",
            holds=ratio.high is not None and ratio.high <= STEP_RATIO_HIGH,
        ),
    )


def outside_bar(model: str, shares: Sequence[float]) -> Bar:
    """What is neither a step nor a wait for a batch, as shares of the epochs' seconds: their median."""
    share = stats.median(shares)
    return Bar(
        what=f"{model}: outside the steps ({len(shares)} epochs)",
        measured=f"{share:.3%}",
        limit=f"<= {OUTSIDE_SHARE:.0%}",
        holds=share <= OUTSIDE_SHARE,
    )


def tutorial_bar(model: str, logs: Sequence[float]) -> Bar:
    """The tutorial's loops / the best, train and evaluate, one value a process pair."""
    ratio = stats.t_interval(logs).exp()
    bounds = "" if ratio.low is None or ratio.high is None else f" (95 %: {ratio.low:.2f} to {ratio.high:.2f})"
    return Bar(
        what=f"{model}: seconds of the tutorial's loops / of the best ({len(logs)} pairs)",
        measured=f"{ratio.estimate:.2f}{bounds}",
        limit=f">= {TUTORIAL_RATIO[model]}",
        holds=ratio.estimate >= TUTORIAL_RATIO[model],
    )


def exit_code(bars: Sequence[Bar]) -> int:
    """0 where every bar holds, else 1; nothing measured is no proof."""
    return 0 if bars and all(bar.holds for bar in bars) else 1


def percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2%}"
