"""The timing session of a group: live trials that hand a token on, block by block, in a balanced random order.

The method and the measurements behind it: docs/measurement.md.
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from mnist_bench.analysis.ratios import widest_half_width
from mnist_bench.records import Failure, Round, TrialSpec
from mnist_bench.running import protocol
from mnist_bench.running.process import LocalWorker
from mnist_bench.stats import hodges_lehmann

NS = 1e-9
MIN_ROUNDS = 16  # before the widths are looked at: an early look at few rounds is a lucky one
LOOK_EVERY = 4  # rounds: a look costs milliseconds, and a stop may only come after whole ABBA pairs

Answer = TypeVar("Answer", bound=protocol.Message)


Leave = Callable[[Sequence["Member"], Sequence[Round], Collection[int]], Collection[int]]


class Left(Exception):
    """A trial has failed; its member says why."""


@dataclass(slots=True)
class Member:
    """A worker that is ready. ``ended``: its session, which has put its state back; ``failure``: why it has left."""

    worker: LocalWorker
    prepared: protocol.Prepared
    ended: protocol.SessionEnded | None = None
    failure: Failure | None = None

    @property
    def spec(self) -> TrialSpec:
        return self.worker.spec

    def ask(self, request: protocol.Request, kind: type[Answer]) -> Answer:
        """The reply, of the kind that belongs to the request.

        Raises:
            Left: the trial has failed.
        """
        reply = self.worker.call(request)
        if not isinstance(reply, kind):
            self.failure = failure_of(reply)
            raise Left
        return reply

    def token_s(self) -> float:
        """Seconds that it has had the token."""
        return self.worker.token_ns * NS


def failure_of(reply: protocol.Reply) -> Failure:
    if isinstance(reply, protocol.Failed):
        return Failure(kind=reply.kind, reason=reply.reason)
    return Failure(kind="failed", reason=f"the worker broke the protocol: an unexpected {reply.type}")


def time_session(
    members: Sequence[Member],
    rng: random.Random,
    *,
    pairs: Sequence[tuple[int, int]],
    precision: float,
    budget_s: float,
    progress: Callable[[int, float | None, float], None],
    leave: Leave = lambda members, rounds, alive: (),
) -> tuple[tuple[Round, ...], Literal["precise", "budget"]]:
    """Rounds until every ratio is known well enough, or the budget of a member is spent.

    Args:
        pairs: the ratios, by indices of members; without one among members that live, their own seconds per step count.
        precision: half-width of an interval.
        budget_s: of a member with the token.
        progress: told after looks: rounds, widest relative half-width (None: not known), most token seconds used.
        leave: which of those that live (by index) need no further rounds; asked from half of ``MIN_ROUNDS`` on.

    Returns:
        The rounds, and what ended them. A member that failed or left has 0 steps from then on.
    """
    begin_s = [member.token_s() for member in members]
    rounds: list[Round] = []
    alive = set(range(len(members)))
    order: list[int] = []
    while alive:
        order = order[::-1] if len(rounds) % 2 else rng.sample(range(len(members)), len(members))
        rounds.append(_round(members, order, alive, rng))
        used = max((members[index].token_s() - begin_s[index] for index in alive), default=0.0)
        if used >= budget_s:
            break
        if len(rounds) % LOOK_EVERY == 0 and len(rounds) >= MIN_ROUNDS // 2:
            alive.difference_update(leave(members, rounds, alive))
        if len(rounds) % LOOK_EVERY == 0 and len(rounds) >= MIN_ROUNDS:
            width = _width(rounds, [pair for pair in pairs if alive.issuperset(pair)], alive)
            progress(len(rounds), width, used)
            if width is not None and width <= precision:
                return tuple(rounds), "precise"
    return tuple(rounds), "budget"


def _round(members: Sequence[Member], order: Sequence[int], alive: set[int], rng: random.Random) -> Round:
    steps, seconds = [0] * len(members), [0.0] * len(members)
    seed = rng.getrandbits(32)  # one for all: a round is alike for its members, but for the memory they get
    for index in [index for index in order if index in alive]:
        try:
            done = members[index].ask(protocol.Block(seed=seed), protocol.BlockDone)
        except Left:
            alive.discard(index)
        else:
            steps[index], seconds[index] = done.steps, done.seconds
    return Round(order=tuple(order), steps=tuple(steps), seconds=tuple(seconds))


def _width(rounds: Sequence[Round], pairs: Sequence[tuple[int, int]], alive: set[int]) -> float | None:
    """The widest relative half-width; without pairs that of the members' own figures."""
    if pairs:
        return widest_half_width(rounds, pairs)
    widths = []
    for index in alive:
        interval = hodges_lehmann([r.seconds[index] / r.steps[index] for r in rounds])
        if interval.low is None or interval.high is None:
            return None
        widths.append((interval.high - interval.low) / 2 / interval.estimate)
    return max(widths, default=None)
