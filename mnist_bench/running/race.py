"""A race: the cells of a model and device in process groups, until it is known which has the shortest step.

Those that are left are then trained as a run trains, beside the reference variant; the others are skipped, with why.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from mnist_bench.analysis import race
from mnist_bench.analysis.elimination import hopeless
from mnist_bench.analysis.race import Heat
from mnist_bench.analysis.summary import Run
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import Interrupted, UsageError
from mnist_bench.records import Group, Manifest, Round, Skip, Trial, TrialSpec, trial_id
from mnist_bench.running.group import Settings, now, run_group, trial_of
from mnist_bench.running.process import Interrupts
from mnist_bench.running.runner import RunPlan
from mnist_bench.running.session import Member

# What differs between processes outweighs what a longer session of one would show (docs/measurement.md, "A race").
SESSION_S = 4.0  # with the token, of a cell
SESSION_PRECISION = 0.01


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
    specs = {spec.id: spec for group in left for spec in group.specs}
    trained = set[str]()
    for name in [heat.id for heat in race.heats(Run.read(plan.folder))]:
        heat = _race(plan, name, specs, done, settings, interrupts)
        staying = {*heat.standing.alive, *([heat.reference] if heat.reference else [])}
        for first, cell in heat.cells.items():
            for id_ in (trial_id(cell, seed) for seed in plan.manifest.matrix.seeds):
                if first in staying:
                    trained.add(id_)
                elif id_ in specs and id_ not in done:
                    stored = plan.folder.append(trial_of(specs[id_], Skip(reason=race.why_left(heat, first)), now()))
                    done.add(id_)
                    settings.observer.finished(stored)
    wanted = trained - done
    kept = [replace(group, specs=tuple(spec for spec in group.specs if spec.id in wanted)) for group in left]
    return [group for group in kept if group.specs]


def _race(
    plan: RunPlan,
    name: str,
    specs: dict[str, TrialSpec],
    done: set[str],
    settings: Settings,
    interrupts: Interrupts,
) -> Heat:
    """One race to its end."""
    while not (heat := _heat(plan.folder, name)).over:
        if interrupts.requested:
            raise Interrupted("interrupted")
        number = len(heat.sessions) + 1
        id_ = f"{name}/p{number}"
        rng = random.Random(f"{plan.manifest.run_id}/{id_}")
        members = [specs[one] for one in rng.sample(heat.standing.alive, len(heat.standing.alive))]
        settings.observer.notice(f"{heat.name}: process group {number}, {len(members)} cells")
        own = replace(
            settings,
            precision=SESSION_PRECISION,
            budget_s=SESSION_S,
            reference=heat.cells[heat.standing.alive[0]].variant,
            leave=partial(_leaving, plan.manifest) if number == 1 else settings.leave,
        )
        for result in run_group(Group(id=id_, specs=tuple(members)), settings=own, rng=rng, train=False):
            stored = plan.folder.append(result)
            if isinstance(stored, Trial):
                done.add(stored.id)
                settings.observer.finished(stored)
        after = _heat(plan.folder, name)
        for one in after.standing.left.keys() - heat.standing.left.keys():
            settings.observer.notice(f"{heat.cells[one].id} {race.why_left(after, one)}")
    return heat


def _heat(folder: RunFolder, name: str) -> Heat:
    """How it stands by what is on disk."""
    return next(heat for heat in race.heats(Run.read(folder)) if heat.id == name)


def _leaving(
    manifest: Manifest, members: Sequence[Member], rounds: Sequence[Round], alive: Collection[int]
) -> set[int]:
    """Those of another class than is admitted, and of the others those that are far behind."""
    ids, kind = [member.spec.id for member in members], manifest.options.race
    others = set[int]()
    if kind and kind.admitted == "A":
        traces = {member.spec.id: member.prepared.loss_trace for member in members}
        cells = {member.spec.id: member.spec.cell for member in members}
        others = {ids.index(name) for name in race.other_losses(traces, cells, manifest.matrix)}
    staying = [index for index in alive if index not in others]
    return others | hopeless(rounds, staying, [member.spec.cell.batch_size for member in members])
