"""A race: the cells of a model and device in process groups, until it is known which has the shortest step.

Those that are left are then trained as a run trains, beside the reference variant; the others are skipped, with why.
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory

from mnist_bench.analysis import race
from mnist_bench.analysis.elimination import hopeless
from mnist_bench.analysis.race import Heat
from mnist_bench.analysis.summary import Run
from mnist_bench.disk.folder import file_name
from mnist_bench.errors import Interrupted, UsageError
from mnist_bench.records import Cell, Group, Round, Skip, Trial, TrialSpec
from mnist_bench.running.group import Line, Settings, now, run_group, trial_of
from mnist_bench.running.process import Interrupts
from mnist_bench.running.runner import RunPlan
from mnist_bench.running.session import Member

# What differs between processes outweighs what a longer session of one would show (docs/measurement.md, "A race").
SESSION_S = 4.0  # with the token, of a cell
SESSION_PRECISION = 0.01

Keep = Callable[[Line], Line]  # puts a line on disk; returns it as it stands there


def conduct(
    plan: RunPlan, left: Sequence[Group], done: set[str], settings: Settings, interrupts: Interrupts
) -> list[Group]:
    """Executes the races of a run; what is then to be trained of ``left``. Trials that are skipped are ``done``.

    Raises:
        UsageError: there is not the memory for the cells of a race to live together.
        Interrupted: between two process groups, or by the executor.
    """
    if not settings.together:
        raise UsageError("a race times its cells together, and there is not the memory for it: race fewer (--variants)")

    def keep(line: Line) -> Line:
        stored = plan.folder.append(line)
        if isinstance(stored, Trial):
            done.add(stored.id)
            settings.observer.finished(stored)
        return stored

    reasons: dict[Cell, str] = {}  # why a cell is not trained
    for heat in race.heats(Run.read(plan.folder)):
        over = _race(plan, heat, keep, settings, interrupts)
        gone = over.cells.keys() - {*over.standing.alive, over.reference}
        reasons |= {over.cells[name]: race.why_left(over, name) for name in gone}
    for spec in (spec for group in left for spec in group.specs if spec.id not in done and spec.cell in reasons):
        keep(trial_of(spec, Skip(reason=reasons[spec.cell]), now()))
    kept = [replace(group, specs=tuple(spec for spec in group.specs if spec.id not in done)) for group in left]
    return [group for group in kept if group.specs]


def _race(plan: RunPlan, heat: Heat, keep: Keep, settings: Settings, interrupts: Interrupts) -> Heat:
    """One race to its end: every line changes how it stands."""
    specs = {spec.id: spec for spec in plan.specs if spec.id in heat.cells}
    with TemporaryDirectory(prefix="mnist-bench-", ignore_cleanup_errors=True) as caches:
        while not heat.standing.decided:
            if interrupts.requested:
                raise Interrupted("interrupted")
            number, alive, before = len(heat.sessions) + 1, heat.standing.alive, heat.standing.left.keys()
            id_ = f"{heat.id}/p{number}"
            rng = random.Random(f"{plan.manifest.run_id}/{id_}")
            members = [_warm(specs[one], caches) for one in rng.sample(alive, len(alive))]
            settings.observer.notice(f"{heat.name}: process group {number}, {len(members)} cells")
            own = replace(
                settings,
                precision=SESSION_PRECISION,
                budget_s=SESSION_S,
                reference=heat.cells[alive[0]].variant,
                leave=partial(_leaving, heat) if number == 1 else settings.leave,
            )
            for line in run_group(Group(id=id_, specs=tuple(members)), settings=own, rng=rng, train=False):
                heat = heat.after(keep(line))
            for one in heat.standing.left.keys() - before:
                settings.observer.notice(f"{heat.cells[one].id} {race.why_left(heat, one)}")
    return heat


def _warm(spec: TrialSpec, caches: str) -> TrialSpec:
    """With a compiler's cache that the first process group fills for the others: no session times a compilation.

    Not where the compiler tries out what is fastest: what it then chooses is part of what differs between processes.
    """
    tuned = any("tun" in name for name in (spec.variant.compile.mode, *spec.variant.compile.options))
    return spec if tuned else replace(spec, cache_dir=f"{caches}/{file_name(spec.id)}")


def _leaving(heat: Heat, members: Sequence[Member], rounds: Sequence[Round], alive: Collection[int]) -> set[int]:
    """Those of another class than is admitted, and of the others those that are far behind."""
    ids = [member.spec.id for member in members]
    others = {ids.index(name) for name in heat.unlike({one.spec.id: one.prepared.loss_trace for one in members})}
    staying = [index for index in alive if index not in others]
    return others | hopeless(rounds, staying, [member.spec.cell.batch_size for member in members])
