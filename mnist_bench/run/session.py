"""The timing session of a group: live trials that hand a token on, block by block, in a balanced random order.

The method and the measurements behind it: docs/measurement.md.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mnist_bench.analysis.ratios import widest_half_width
from mnist_bench.records import Round
from mnist_bench.run.protocol import BlockDone
from mnist_bench.stats import hodges_lehmann

MIN_ROUNDS = 16  # before the widths are looked at: an early look at few rounds is a lucky one
LOOK_EVERY = 4  # rounds: a look costs milliseconds, and a stop may only come after whole ABBA pairs


class Member(Protocol):
    """One trial of the session."""

    def block(self, seed: int) -> BlockDone | None:
        """Executes one block; None: it has failed and leaves the session."""

    def token_s(self) -> float:
        """Seconds that it has had the token in this session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When to stop: every ratio of ``pairs`` (indices of members) known to ``precision``, or a member at its budget.

    Without pairs (a member alone) it is the precision of the member's own seconds per step.
    """

    pairs: tuple[tuple[int, int], ...]
    precision: float
    budget_s: float


def time_session(
    members: Sequence[Member],
    plan: Plan,
    rng: random.Random,
    progress: Callable[[int, float | None, float], None],
) -> tuple[tuple[Round, ...], Literal["precise", "budget"]]:
    """Rounds until the plan is met.

    Args:
        progress: told after looks: rounds, widest relative half-width (None: not known), most token seconds used.

    Returns:
        The rounds, and what ended them. A member that failed has 0 steps from then on.
    """
    rounds: list[Round] = []
    alive = set(range(len(members)))
    order: list[int] = []
    while alive:
        order = order[::-1] if len(rounds) % 2 else rng.sample(range(len(members)), len(members))
        rounds.append(_round(members, order, alive, rng))
        used = max((members[index].token_s() for index in alive), default=0.0)
        if used >= plan.budget_s:
            return tuple(rounds), "budget"
        if len(rounds) >= MIN_ROUNDS and len(rounds) % LOOK_EVERY == 0:
            width = _width(rounds, plan, alive)
            progress(len(rounds), width, used)
            if width is not None and width <= plan.precision:
                return tuple(rounds), "precise"
    return tuple(rounds), "budget"


def _round(members: Sequence[Member], order: Sequence[int], alive: set[int], rng: random.Random) -> Round:
    steps, seconds = [0] * len(members), [0.0] * len(members)
    seed = rng.getrandbits(32)  # one for all: a round is alike for its members, but for the memory they get
    for index in order:
        if index not in alive:
            continue
        done = members[index].block(seed)
        if done is None:
            alive.discard(index)
            continue
        steps[index], seconds[index] = done.steps, done.seconds
    return Round(order=tuple(order), steps=tuple(steps), seconds=tuple(seconds))


def _width(rounds: Sequence[Round], plan: Plan, alive: set[int]) -> float | None:
    """The widest relative half-width among members still alive."""
    pairs = [pair for pair in plan.pairs if alive.issuperset(pair)]
    if pairs:
        return widest_half_width(rounds, pairs)
    widths = []
    for index in alive:
        per_step = [r.seconds[index] / r.steps[index] for r in rounds if r.steps[index]]
        interval = hodges_lehmann(per_step)
        if interval.low is None or interval.high is None:
            return None
        widths.append((interval.high - interval.low) / 2 / interval.estimate)
    return max(widths, default=None)
