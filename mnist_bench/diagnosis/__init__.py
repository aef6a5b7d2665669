"""What ``doctor`` judges: a literal table of small pure checks, each from facts to a finding or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mnist_bench.diagnosis import machine, software, surroundings
from mnist_bench.diagnosis.facts import LEVELS, Check, Facts, Level

# group: its checks, in the order in which they are shown. The name of a function is the check's name.
CHECKS: Mapping[str, Sequence[Check]] = {
    "software": (software.python, software.torch, software.build_for_gpu, software.torchvision),
    "devices": (
        software.cpu,
        software.cuda,
        software.hidden_gpus,
        software.gpu_neighbours,
        software.tf32,
        software.mps,
        software.xpu,
    ),
    "compiler": (
        software.compiler,
        software.python_headers,
        software.compile_trial,
        software.compile_disabled,
    ),
    "threads": (
        machine.threads,
        machine.quota,
        machine.hyper_threads,
        machine.thread_variables,
        machine.spinning_threads,
    ),
    "noise": (
        machine.noise,
        machine.neighbours,
        machine.load,
        machine.other_runs,
        machine.governor,
        machine.huge_pages,
        machine.clock,
        machine.battery,
    ),
    "memory": (machine.memory, machine.swap, surroundings.shared_memory),
    "data and results": (
        surroundings.data_set,
        surroundings.results,
        surroundings.temporary,
    ),
    "environment": (surroundings.slowing_variables, surroundings.changing_variables, surroundings.shadowing),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A finding with the check that made it."""

    group: str
    check: str
    level: Level
    what: str
    mend: str


def diagnose(facts: Facts) -> tuple[Diagnosis, ...]:
    """Everything that the checks found, in their order."""
    found = []
    for group, checks in CHECKS.items():
        for check in checks:
            finding = check(facts)
            if finding is not None:
                name = check.__name__
                found.append(
                    Diagnosis(group=group, check=name, level=finding.level, what=finding.what, mend=finding.mend)
                )
    return tuple(found)


def worst(diagnoses: Sequence[Diagnosis]) -> Level:
    """The gravest level among them."""
    return max((each.level for each in diagnoses), key=LEVELS.index, default="ok")
