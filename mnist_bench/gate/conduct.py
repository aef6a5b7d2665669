"""What a check measures next, and when it is enough: real workers of two trees, every line kept in a run's folder.

Speed comes first: process pairs, spread over the cells, until each has had its first look; then the seeds of those
whose speed is decided, and more pairs of the others. A cell with a verdict gets nothing more. What comes first is free
to follow from what was seen: each test looks at its own numbers of samples only. Nothing is begun that the budget does
not seem to hold, and no pair that could not bring its cell to the next look: pairs between looks decide nothing. Where
no look is within reach the check ends at once, and says what it would take. A training that outlives the budget is
given up and leaves nothing.
"""

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from operator import itemgetter
from statistics import fmean, median, variance
from typing import Any, Literal, NamedTuple

import numpy as np

from mnist_bench import stats
from mnist_bench.analysis.ratios import round_log_ratios
from mnist_bench.analysis.summary import Run
from mnist_bench.cells import expand
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import BenchError, Interrupted, UsageError
from mnist_bench.gate.evidence import CellEvidence, Check, Line, Margins, by_cell, gather, measured
from mnist_bench.gate.judge import Verdict, cells_compared, change, verdict_of
from mnist_bench.gate.samples import DEFAULT, looks
from mnist_bench.gate.sides import NAMES, PAIR_TOKEN_S, Bench, Found
from mnist_bench.machine import environment
from mnist_bench.machine.forecast import trial_s
from mnist_bench.records import Cell, DataSet, Matrix, Measurement, Session, Sides, Trial
from mnist_bench.running.group import now
from mnist_bench.table import duration

ASSUMED_SD = 0.03  # of a pair's log ratio, until some are measured: identical code here (docs/decisions/0016)
GUESS_FACTOR = 4  # a guess of a time may be off by so much: before it is believed, one pair is measured
POWER = 0.9  # of the forecast
DRAWS = 2000  # of ``detectable``: the standard error of the slow-down at power 0.9 is then a few per cent of it
AT_ONCE = 1 << 22  # Walsh averages in memory: of 200 pairs there are 20,100 a draw
NEEDS = "budget: "  # how the note begins that says what an undecided check would take

Task = Literal["pair", "seed", "solo"]  # a process pair; both sides trained; B alone


def measure(bench: Bench, budget_s: float, started_s: float, changed: Callable[[], bool] = lambda: False) -> Check:
    """Measures until every cell of the folder's check is decided, the user interrupts, or the budget is spent.

    Args:
        bench: its folder is the check's.
        budget_s: wall time over all sittings.
        started_s: the bench's clock when this sitting began.
        changed: whether a side is no longer what it was: nothing more may be kept then.

    Returns:
        The check as it then stands on disk; its status tells an interrupt.

    Raises:
        BenchError: a side was changed meanwhile, or another process is at this check.
    """
    folder = bench.folder
    with folder.lock():
        conductor = Conductor(bench, budget_s, started_s, changed)
        status = "interrupted"
        try:
            conductor.run()
            status = "complete"
        except Interrupted:
            pass  # the status is the answer
        finally:
            conductor.keep(status=status, ended_at=now())
        return gather(Run.read(folder))


class Want(NamedTuple):
    """What may decide a cell: pairs to its next look (0: its speed is decided, or no look is left), and seeds.

    ``pairs_s``, ``seeds_s``: what these take. A cell that wants pairs will want a seed after them, if it has none.
    """

    one: CellEvidence
    pairs: int
    seeds: int
    pairs_s: float
    seeds_s: float


class Conductor:
    """One sitting of a check, inside the folder's lock.

    What the folder tells is read once; a new line changes what is known of its own cell alone.
    """

    def __init__(self, bench: Bench, budget_s: float, started_s: float, changed: Callable[[], bool]) -> None:
        self._bench, self._folder, self._changed = bench, bench.folder, changed
        self._budget_s, self._started_s, self._before_s = budget_s, started_s, sides_of(bench.folder).spent_s
        self.keep(status="running", ended_at=None)
        run = Run.read(self._folder)
        known = gather(run).cells
        self._manifest, self._lines = run.manifest, by_cell(run)
        self._compared = max(1, cells_compared(known))
        self._cells = {one.cell: one for one in known}
        self._verdicts = {one.cell: self._judged(one) for one in known}
        self._looks = {one.cell: looks(self._compared, one.margins) for one in known}
        self._guesses = guesses(run.manifest.matrix, run.manifest.dataset)
        self._rng = random.Random(f"{self._folder.run_id}/{self._before_s}")

    def keep(self, **changes: Any) -> None:
        """Writes what is spent, and what else has changed in the manifest."""
        before = sides_of(self._folder)
        notes = [note for note in before.notes if not note.startswith(NEEDS)]
        if changes.get("status") == "complete":
            notes += self._needs()
        sides = replace(before, budget_s=self._budget_s, spent_s=self.spent_s(), notes=tuple(notes))
        self._folder.update_manifest(check=sides, **changes)

    def _add(self, line: Line, cell: Cell) -> None:
        """Writes a line; what is then known is what stands on disk."""
        planned, lines = self._lines[cell]
        lines.append(self._folder.append(line))
        self._cells[cell] = measured(self._manifest, planned, lines)
        self._verdicts[cell] = self._judged(self._cells[cell])

    def _judged(self, one: CellEvidence) -> Verdict:
        return verdict_of(one, self._compared, "against")

    def run(self) -> None:
        """Measures until every cell is decided, or the budget is spent.

        Raises:
            Interrupted: what was measured is in the folder.
        """
        self._forecast()
        # In random order: which cell comes first must not hang together with how the machine drifts.
        while tasks := self._tasks():
            done = [self._do(task, cells) for task, cells in self._rng.sample(tasks, len(tasks))]
            if not any(done):
                return

    def spent_s(self) -> float:
        return self._before_s + self._bench.clock() - self._started_s

    def left_s(self) -> float:
        return self._budget_s - self.spent_s()

    # ── what comes next ──────────────────────────────────────────────────────────────────────────────────────────────

    def _wants(self) -> list[Want]:
        """What the cells want that can be compared and have no verdict yet: one failure is one, whatever else there is.

        A cell gets no seed before its speed has been looked at.
        """
        found = []
        for one in self._cells.values():
            verdict = self._verdicts[one.cell]
            if one.comparable and verdict.kind == "inconclusive":
                have, first = len(one.pairs), min(self._looks[one.cell])
                looked = [each.next_look for each in (verdict.speed, *verdict.memory.values()) if each]
                look = min(filter(None, looked), default=None) if looked else first
                pairs, more = (look or have) - have, verdict.accuracy.more_seeds if verdict.accuracy else 1
                seeds = max(more, len(one.seeds_awaited)) if have >= first else 0
                next_seeds = int(not one.seeds) if pairs else seeds
                pair_s, seed_s = (self._seconds(task, one.cell) for task in ("pair", "seed"))
                lanes = self._bench.lanes
                found.append(Want(one, pairs, seeds, pairs * pair_s / lanes, math.ceil(next_seeds / lanes) * seed_s))
        return found

    def _tasks(self) -> list[tuple[Task, list[Cell]]]:
        """One sweep: a pair of every cell that wants its first look; once all have had it, of the others, and seeds.

        As many pairs as may live together are one task; where there is room for more, they are those of several sweeps.

        B's cell is trained by itself where it can be compared with nothing, but may fail, or miss a floor.
        """
        wants = self._wants()
        reachable = self._reachable([want for want in wants if want.pairs])
        early = [one.cell for one in reachable if len(one.pairs) < min(self._looks[one.cell])]
        pairs = early or [one.cell for one in reachable]
        missing = {want.one.cell: want.pairs for want in wants}
        tasks = self._together("pair", {cell: missing[cell] for cell in pairs}, self._bench.abreast())
        if not early:
            seeds = {want.one.cell: want.seeds for want in wants if want.seeds and want.one.cell not in pairs}
            alone = {
                one.cell: 1
                for one in self._cells.values()
                if one.b and one.b.status == "ok" and not one.comparable and (not one.b.trainings or one.seeds_awaited)
            }
            tasks += self._together("seed", seeds, self._bench.lanes) + self._together("solo", alone, self._bench.lanes)
        return tasks

    def _together(self, task: Task, missing: Mapping[Cell, int], room: int) -> list[tuple[Task, list[Cell]]]:
        """A sweep over cells of which so much is missing, or as many as there is room for; in parts of the room."""
        sweeps, cells = range(math.ceil(room / max(1, len(missing)))), [*missing]
        due = [cell for n in sweeps for cell in self._rng.sample(cells, len(cells)) if n < missing[cell]]
        due = due[: max(room, len(cells))]
        return [(task, due[n : n + room]) for n in range(0, len(due), room)]

    def _reachable(self, wants: Sequence[Want]) -> list[CellEvidence]:
        """The cells that want pairs, those nearest to a look first, as far as the budget holds what takes them there.

        That is the pairs and, for a pass, a seed; where no cell can have both, the pairs: a slow-down is a verdict
        without it. Before any pair has shown how good the guesses are, one is measured all the same.
        """
        for with_seed in (True, False):
            needs = sorted(((want.pairs_s + with_seed * want.seeds_s, want.one) for want in wants), key=itemgetter(0))
            ends = itertools.accumulate(seconds for seconds, _ in needs)
            if found := [one for end, (_, one) in zip(ends, needs, strict=True) if end <= self.left_s()]:
                return found
        guessed = not any(one.pairs for one in self._cells.values())
        return [needs[0][1]] if guessed and needs and needs[0][0] <= GUESS_FACTOR * self.left_s() else []

    # ── one task ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _do(self, task: Task, cells: Sequence[Cell]) -> bool:
        """Carries out a task for as many of the cells as the budget holds; whether for any."""
        asked: list[tuple[Cell, int, str]] = []
        left_s, each_s = self.left_s(), [self._seconds(task, cell) for cell in cells]
        for cell, own_s, end in zip(cells, each_s, itertools.accumulate(each_s), strict=True):
            if max(own_s, end / self._bench.lanes) <= left_s:
                asked.append((cell, *self._named(task, cell, sum(one == cell for one, *_ in asked))))
        if not asked:
            return False
        observer, begin = self._bench.observer, self.spent_s()
        words = asked[0][2] if len(asked) == 1 else f"{len(asked)} {task}s side by side"
        observer.working(words, left_s, self._budget_s)
        with closing(self._measure(task, [(cell, number) for cell, number, _ in asked])) as found:
            for place, lines in found:
                cell, _, name = asked[place]
                if self._changed():
                    raise BenchError("the working tree was changed while it was measured: start a new check")
                for line in lines:
                    self._add(line, cell)
                self.keep()
                faults = any(isinstance(line, Trial) and line.status != "ok" for line in lines)
                none = "given up: the budget is spent" if self.left_s() <= 0 else "lost with its node"
                took = f"{self.spent_s() - begin:.0f} s, {duration(self.left_s())} left"
                where = "".join(f" on {node}" for node in sorted({line.node for line in lines} - {""}))
                observer.notice(f"{name}{where}  {_found(lines) or none}  {took}", warning=faults)
                begin = self.spent_s()
        return True

    def _measure(self, task: Task, asked: Sequence[tuple[Cell, int]]) -> Found:
        """What is measured, as it comes."""
        if task == "pair":
            return self._bench.pairs(asked)
        return self._bench.trainings(asked, NAMES if task == "seed" else ("B",), self.left_s)

    def _named(self, task: Task, cell: Cell, begun: int) -> tuple[int, str]:
        """The number of a pair, or the next seed, those of the matrix first; and what the task is called.

        Args:
            begun: those of the cell that are asked for together with this one, before it.
        """
        one = self._cells[cell]
        if task == "pair":
            number = len(one.pairs) + begun + 1
            until = next((look for look in self._looks[cell] if look >= number), number)
            return number, f"pair {number}/{until}  {cell.id}"
        done = {each.seed for each in one.b.trainings} if one.b else set()
        seeds = itertools.chain(self._manifest.matrix.seeds, itertools.count())
        seed = next(itertools.islice((seed for seed in seeds if seed not in done), begun, None))
        return seed, f"{'B alone, ' * (task == 'solo')}seed {seed}  {cell.id}"

    def _seconds(self, task: str, cell: Cell) -> float:
        """Of a whole task. A cell's own median counts; before its first, the guess by how far others were off."""
        kind = "pair" if task == "pair" else "training"
        guessed, each = self._guesses[kind], self._measured_s(kind, cell)
        if each is None:
            known = ((one, self._measured_s(kind, one)) for one in guessed.keys() & self._lines.keys())
            off = [found / guessed[one] for one, found in known if found is not None]
            each = guessed[cell] * median(off or [1.0])
        return 2 * each if task == "seed" else each

    def _measured_s(self, kind: str, cell: Cell) -> float | None:
        """The median of a cell's own; None: none is done."""
        _, lines = self._lines[cell]
        if kind == "pair":
            found = [line.seconds for line in lines if isinstance(line, Session)]
        else:
            outcomes = [line.outcome for line in lines if isinstance(line, Trial)]
            found = [one.awake_s for one in outcomes if isinstance(one, Measurement)]
        return median(found) if found else None

    # ── what the budget is enough for ────────────────────────────────────────────────────────────────────────────────

    def _forecast(self) -> None:
        """Says what the budget can show: of guesses, or of what the first pairs took and how they spread."""
        wants = self._wants()
        if not wants:
            return
        cells = [want.one for want in wants]
        logs = [[pair.log_ratio for pair in one.pairs] for one in cells if len(one.pairs) > 1]
        sd = math.sqrt(fmean(map(variance, logs))) if logs else ASSUMED_SD
        # 0: lines that were edited.
        each_s = math.fsum(self._seconds("pair", one.cell) for one in cells) / self._bench.lanes or 1.0
        have, planned = min(len(one.pairs) for one in cells), [look for one in cells for look in self._looks[one.cell]]
        first = min(planned)
        fit = int((self.left_s() - math.fsum(want.seeds_s for want in wants)) / each_s)
        pairs = min(max(planned), have + max(0, fit))
        if pairs < first:
            (needs,) = self._needs()
            text = f"too little for a verdict on every cell: {needs.removeprefix(NEEDS)}, or choose cells with --filter"
        else:
            found = max(detectable(pairs, self._compared, sd, one.margins) for one in cells)
            found_at = f"in {100 * POWER:.0f} of 100 cases, {'as' if logs else 'if'} they spread by {100 * sd:.1f} %"
            text = (
                f"about {pairs} pairs a cell fit, {first} make a first look ({duration(first * each_s / len(cells))}); "
                f"the smallest slow-down that they find {found_at}: {100 * found:.1f} %"
            )
        budget = f"{duration(self.left_s())} of the budget of {duration(self._budget_s)} left"
        self._bench.observer.notice(f"{budget}: {text}", warning=pairs < first)

    def _needs(self) -> list[str]:
        """A note of what would bring the cells that are undecided to their next look; none: nothing would."""
        each_s = [want.pairs_s + want.seeds_s for want in self._wants() if want.pairs or want.seeds]
        if not each_s:
            return []
        cells = f"{len(each_s)} cell{'s are' if len(each_s) > 1 else ' is'} undecided"
        minutes = math.ceil((self.spent_s() + math.fsum(each_s)) / 60)
        return [f"{NEEDS}{cells}; the next look at all of them takes about --budget {minutes}m in all"]


def _found(lines: Sequence[Session | Trial]) -> str:
    """One line of what was found; empty: nothing."""
    match lines:
        case [Session() as session]:
            speed = math.exp(median(round_log_ratios(session.rounds, 0, 1)))
            return f"{change(speed)} ({len(session.rounds)} rounds){' noisy' * bool(session.noisy)}"
        case [Trial(outcome=Measurement() as a), Trial(outcome=Measurement() as b)]:
            same = "equal predictions" if a.predictions_sha256 == b.predictions_sha256 else "predictions differ"
            return f"{same}, accuracy {a.epochs.accuracy[-1]:.4f} and {b.epochs.accuracy[-1]:.4f}"
    said = [f"{line.side}: {line.reason or 'works'}" for line in lines if isinstance(line, Trial)]
    return "; ".join(said)


def sides_of(folder: RunFolder) -> Sides:
    """What makes a run's folder that of a check.

    Raises:
        UsageError: it is none.
    """
    found = folder.manifest().check
    if found is None:
        raise UsageError(f"{folder.path}: is a run, no check: `mnist-bench run --resume` goes on with it")
    return found


def guesses(matrix: Matrix, data: DataSet) -> dict[str, dict[Cell, float]]:
    """About how many seconds a pair and a training of each cell take, by the coarse model."""
    cells, cores = expand(matrix), environment.available_cores()
    return {
        "pair": {one: 1.5 * trial_s(one, matrix, 0, cores, data) + 2 * PAIR_TOKEN_S for one in cells},
        "training": {one: trial_s(one, matrix, matrix.epochs, cores, data) for one in cells},
    }


def detectable(pairs: int, cells: int, sd: float, margins: Margins = DEFAULT, power: float = POWER) -> float:
    """The smallest slow-down of a cell that so many pairs find with the given probability.

    As ``find_speed`` decides: found where, at one of the looks that are reached, a ratio <= 1 + margin is rejected, and
    a ratio >= 1 + detect was at none before, which is a pass. So more pairs than the first look's help less than one
    might think: a slow-down of 5 % mostly passes there, as it may. Log ratios are taken as normal; spikes cost power.

    Each draw of a fixed sample of the standard normal has a smallest shift from which on it is found. The test is
    inverted for it: it rejects where the r-th smallest Walsh average, r by the critical rank sum, lies above the bound.

    Args:
        pairs: of one cell, all that the budget allows.
        cells: K, how many the check compares.
        sd: of a pair's log ratio (0.04: pairs differ by about 4 %).
        margins: what is tolerated and certified.
        power: the probability.

    Returns:
        As a fraction (0.1: 10 % slower); infinite where the pairs do not reach the first look.
    """
    found = np.full(DRAWS, math.inf)  # from which log ratio on
    passed = np.full(DRAWS, -math.inf)  # below which one it has passed by then
    planned = looks(cells, margins)
    for look in (look for look in planned if look <= pairs):
        low, high = _sample_ends(look, max(planned), planned[look])
        found = np.minimum(found, np.maximum(math.log1p(margins.margin) - sd * low, passed))
        passed = np.maximum(passed, math.log1p(margins.detect) - sd * high)
    return math.expm1(float(np.quantile(found, power))) if pairs >= min(planned) else math.inf


@lru_cache(maxsize=64)
def _sample_ends(look: int, last_look: int, alpha: float) -> tuple[stats.FloatArray, stats.FloatArray]:
    """Of each draw of a standard normal sample: the Walsh average below which a centre is rejected, and above which."""
    # Each look has the last one's pairs.
    sample = np.random.default_rng(0).standard_normal((DRAWS, last_look))[:, :look]
    first, second = np.triu_indices(look)
    # As many of them lie above a bound as the sum of positive ranks about it says (Hollander & Wolfe, section 3.2).
    rank = stats.critical_rank(look, alpha) or 0
    ends = [rank, len(first) - 1 - rank]
    some = np.array_split(sample, 1 + DRAWS * len(first) // AT_ONCE)
    walsh = ((part[:, first] + part[:, second]) / 2 for part in some)
    low, high = np.concatenate([np.partition(one, ends, axis=1)[:, ends] for one in walsh]).T
    return low, high
