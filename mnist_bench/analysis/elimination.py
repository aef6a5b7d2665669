"""Which of several cells has the shortest step: they are timed in turns, and leave once shown to be slower. Pure.

A process group is one fresh process of each cell in one session. ln(seconds an image) of a cell in a group is taken as
cell + group + error, where the error is of the process (where memory landed, which cores) and of its session; its
deviation is estimated over all groups and cells at once. Elimination by looks fixed beforehand: Even-Dar, Mannor &
Mansour (2006), J. Mach. Learn. Res. 7, 1079-1105; each look has a share of the error rate, and each cell beside the
leader an equal share of that (Bonferroni), so that the fastest leaves in at most ``ERROR`` of all races. Rates by
simulation: docs/measurement.md, "A race".
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from mnist_bench.analysis.ratios import Timed, log_ratios, ratios_of, seconds_per_step
from mnist_bench.records import Round, Session
from mnist_bench.stats import CONFIDENCE, FloatArray, Interval, medians, student_quantile

ERROR = 0.05  # that the fastest is not among those that are left
LOOKS = (2, 3, 4, 6, 8, 12, 16, 24)  # after so many process groups; the last ends the race
FINAL = ERROR / 2  # of the last look, whenever that comes
EARLY = ERROR / 2 / (len(LOOKS) + 1)  # of each look before it, that within the first session included
# Two processes of one code have differed by 1.2 to 1.8 % (``ratios.PROCESS_SD``). In the first session, where the
# spread is not known yet, a cell leaves only if it would under this one too.
MOST_SD = 0.04

Effects = Mapping[str, float]  # of one process group, by trial: ln seconds an image, less the group's own


def effects(session: Session, batch_sizes: Mapping[str, int]) -> Effects:
    """What a session says of each member: the median over rounds of how far it lies from the mean of those that stayed.

    Args:
        batch_sizes: by member.
    """
    logs = np.log(Timed(session).step_s) - np.log([batch_sizes[member] for member in session.members])
    stayed = ~np.isnan(logs).any(axis=0)
    if not stayed.any():
        return {}
    found = medians(logs - logs[:, stayed].mean(axis=1, keepdims=True)).tolist()
    return {member: one for member, one in zip(session.members, found, strict=True) if not math.isnan(one)}


def hopeless(rounds: Sequence[Round], alive: Collection[int], batch_sizes: Sequence[int]) -> set[int]:
    """The members (by index) that are far behind already within the first session."""
    step_s = seconds_per_step(rounds, len(batch_sizes)) / np.array(batch_sizes)
    if not alive:
        return set()
    leader = min(alive, key=lambda index: float(np.median(step_s[:, index])))
    others = [index for index in alive if index != leader]
    found = ratios_of(log_ratios(step_s, [(index, leader) for index in others]))
    quantile = NormalDist().inv_cdf(1 - EARLY / max(1, len(others)))
    return {
        index
        for index, one in zip(others, found, strict=True)
        if one and one.variance is not None and one.interval.estimate > quantile * math.sqrt(one.variance + MOST_SD**2)
    }


class Fit:
    """Cell + group + error, by least squares, over groups that need not hold the same cells."""

    def __init__(self, groups: Sequence[Effects]) -> None:
        cells = dict.fromkeys(cell for group in groups for cell in group)
        self._place = {cell: number for number, cell in enumerate(cells)}
        seen = [(number, cell, value) for number, group in enumerate(groups) for cell, value in group.items()]
        design = np.zeros((len(seen), len(cells) + len(groups)))
        for line, (number, cell, _) in enumerate(seen):
            design[line, [self._place[cell], len(cells) + number]] = 1.0
        values = np.array([value for _, _, value in seen])
        self._inverse = np.linalg.pinv(design.T @ design)
        found: FloatArray = self._inverse @ design.T @ values
        self.freedom = len(seen) - (len(cells) + len(groups) - 1)
        rest = values - design @ found
        self.variance = float(rest @ rest) / self.freedom if self.freedom else math.nan  # of one process
        self.estimates = dict(zip(cells, found.tolist(), strict=False))
        self._groups = groups

    def behind(self, cell: str, other: str) -> tuple[float, float]:
        """How far a cell is behind another (log scale), and the standard error, which after one group is assumed.

        The variance of a difference is the larger of that of all cells and that of these two alone.
        """
        contrast = np.zeros(len(self._inverse))
        contrast[self._place[cell]], contrast[self._place[other]] = 1.0, -1.0
        variance = float(contrast @ self._inverse @ contrast) * self.variance if self.freedom else MOST_SD**2
        own = [group[cell] - group[other] for group in self._groups if cell in group and other in group]
        if len(own) > 1:
            variance = max(variance, float(np.var(own, ddof=1)) / len(own))
        return self.estimates[cell] - self.estimates[other], math.sqrt(variance)

    def ratio(self, cell: str, other: str, tail: float) -> Interval | None:
        """How many times faster a cell is than another, with an error of ``tail`` on either side; None: not timed."""
        if not {cell, other} <= self.estimates.keys():
            return None
        gap, error = self.behind(other, cell)
        half = self.quantile(tail) * error
        return Interval(1.0) if cell == other else Interval(gap, gap - half, gap + half).exp()

    def quantile(self, tail: float) -> float:
        """What Student's variable exceeds with this probability; after one group, a normal one."""
        return student_quantile(self.freedom, 1 - 2 * tail) if self.freedom else NormalDist().inv_cdf(1 - tail)


@dataclass(frozen=True, slots=True)
class Left:
    """When a cell left: after how many groups, and how many times faster than the leader of that time it was."""

    groups: int
    leader: str
    ratio: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a race stands.

    Args:
        alive: those that are not shown to be slower than the first of them.
        left: the others that were timed.
        fit: None: before the first group.
        decided: no further group is needed, or no time is left for one.
    """

    alive: Sequence[str]
    left: Mapping[str, Left] = field(default_factory=dict)
    fit: Fit | None = None
    decided: bool = False

    def ratio(self, cell: str, other: str) -> Interval | None:
        """How many times faster a cell is than another, its interval as wide as the last look's; None: not timed."""
        return self.fit.ratio(cell, other, FINAL / max(1, len(self.alive) - 1)) if self.fit else None


def standing(
    groups: Sequence[Effects], entered: Sequence[str], *, precision: float, early: Collection[str] = (), over: bool
) -> Standing:
    """How a race stands after these process groups, every look taken again.

    It is decided where one cell is left, or the ratios of those left to the leader are known to within ``precision``
    (half-width of a 95 % interval), or after the last of ``LOOKS``, or where it is ``over``: no time is left.

    Args:
        entered: the cells, as trials.
        early: those that left within the first session, or did not enter.
    """
    alive, left = [cell for cell in entered if cell not in early], dict[str, Left]()
    fit, decided = None, over or len(alive) < 2
    for count in range(1, len(groups) + 1):
        fit = Fit(groups[:count])
        alive.sort(key=lambda cell: fit.estimates.get(cell, math.inf))
        if count == 1:
            left |= _left(fit, alive, [cell for cell in entered if cell in early], EARLY, count)
        if count in LOOKS:
            left |= _slower(fit, alive, EARLY, count)
            alive = [cell for cell in alive if cell not in left]
        if count == len(groups):
            decided |= len(alive) < 2 or count >= LOOKS[-1] or _precise(fit, alive, precision)
            left |= _slower(fit, alive, FINAL, count) if decided else {}
    return Standing(alive=[cell for cell in alive if cell not in left], left=left, fit=fit, decided=decided)


def _left(fit: Fit, alive: Sequence[str], cells: Sequence[str], error: float, count: int) -> dict[str, Left]:
    """How far cells are behind the leader, the first of ``alive``, at an equal share of the error of a look."""
    tail = error / max(1, len(alive) - 1)
    found = ((cell, fit.ratio(cell, alive[0], tail)) for cell in cells if alive)
    return {cell: Left(count, alive[0], ratio) for cell, ratio in found if ratio}


def _slower(fit: Fit, alive: Sequence[str], error: float, count: int) -> dict[str, Left]:
    """Those shown to be slower than the leader."""
    found = _left(fit, alive, alive[1:], error, count) if fit.freedom else {}
    return {cell: one for cell, one in found.items() if (one.ratio.high or 1) < 1}


def _precise(fit: Fit, alive: Sequence[str], precision: float) -> bool:
    if not fit.freedom:
        return False
    quantile = fit.quantile((1 - CONFIDENCE) / 2)
    return all(quantile * fit.behind(cell, alive[0])[1] <= math.log1p(precision) for cell in alive[1:])
