"""The same variant twice under two names: does the timing session find that they are equal?

For each model and seed: one paired session of two fresh processes (``a`` and ``b``, both eager, CPU, batch 100), and
beside it two solo sessions of fresh processes, one after the other. In every second session ``b`` is started first.
Exit code 0: the bars hold; 1: one does not.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import report
from bench.bars import Bar, agreement_bars, holds_one, percent, spread, start_bar
from bench.live import EAGER, Timed, Workshop, time_session
from mnist_bench.analysis.ratios import SessionIndex, SpeedUp, speed_up
from mnist_bench.records import Timing, Variant

A, B = replace(EAGER, name="a"), replace(EAGER, name="b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """One paired session (``together``) and two solo ones (or none) of one model and seed, with the ratio a / b of each
    way."""

    model: str
    seed: int
    paired: SpeedUp
    solo: SpeedUp | None
    together: Timed
    apart: tuple[Timed, ...]

    @property
    def first_log(self) -> float:
        """ln ratio, started first / other."""
        return math.log(self.paired.interval.estimate) * (1 if starts_first(self.seed) == A else -1)


def starts_first(seed: int) -> Variant:
    return (A, B)[seed % 2]


def main(argv: Sequence[str] | None = None) -> int:
    flags = report.parser(__doc__, ("lenet5", "mlp"))
    flags.add_argument("--sessions", type=report.count, default=16, help="of each model (default: 16)")
    flags.add_argument("--budget", type=float, default=10.0, help="token seconds of a member (default: 10)")
    flags.add_argument("--no-solo", action="store_true", help="paired sessions alone")
    flags.add_argument("--precision", type=float, default=Timing().precision, help="default: %(default)s")
    args = flags.parse_args(argv)
    return report.conduct("aa", args, lambda workshop, samples: prove(args, workshop, samples))


def prove(args: argparse.Namespace, workshop: Workshop, samples: list[Any]) -> tuple[Bar, ...]:
    for seed in range(args.sessions):
        for model in args.models:
            how = {"precision": args.precision, "budget_s": args.budget}
            samples.append(found := repeat(model, seed, workshop, solo=not args.no_solo, **how))
            report.say(
                f"{model} {seed + 1}/{args.sessions}: paired {found.paired.interval.estimate:.4f} in "
                f"{len(found.together.session.rounds)} rounds, {starts_first(seed).name} started first"
            )
    report.print_rows("sessions: seconds per step of a / of b", [_row(found) for found in samples])
    report.print_rows(
        "spread of ln ratio over sessions", [row for model in args.models for row in _spreads(model, samples)]
    )
    return judge(args.models, samples)


def repeat(model: str, seed: int, workshop: Workshop, *, solo: bool, precision: float, budget_s: float) -> Repeat:
    """The paired session first, then the solo ones, in the same order."""
    specs = [workshop.spec(model, variant, seed) for variant in (A, B)]
    in_turn = specs if starts_first(seed) == A else specs[::-1]
    together = time_session(in_turn, workshop, precision=precision, budget_s=budget_s, reference=A.name)
    apart = tuple(
        time_session([spec], workshop, precision=precision, budget_s=budget_s, reference=None)
        for spec in in_turn * solo
    )
    ids = [(specs[0].id, specs[1].id)]
    paired, alone = (speed_up(ids, SessionIndex([one.session for one in timed])) for timed in ((together,), apart))
    if paired is None or (solo and alone is None):
        raise RuntimeError(f"{model}, seed {seed}: a session without a common round")
    return Repeat(model=model, seed=seed, paired=paired, solo=alone, together=together, apart=apart)


def judge(models: Sequence[str], repeats: Sequence[Repeat]) -> tuple[Bar, ...]:
    """The bars of every model, on its paired sessions alone."""
    bars: list[Bar] = []
    for model in models:
        own = [one for one in repeats if one.model == model]
        bars += [
            *agreement_bars(model, [one.paired for one in own]),
            start_bar(model, [one.first_log for one in own]),
        ]
    return tuple(bars)


def _row(found: Repeat) -> dict[str, Any]:
    timed = found.together
    return {
        "model": found.model,
        "seed": found.seed,
        "ratio": found.paired.interval.estimate,
        "low": found.paired.interval.low,
        "high": found.paired.interval.high,
        "holds 1.0": holds_one(found.paired),
        "rounds": len(timed.session.rounds),
        "stopped": timed.session.stopped,
        "session s": f"{timed.timing_s:.1f}",
        "started first": starts_first(found.seed).name,
        "solo ratio": found.solo and found.solo.interval.estimate,
        "solo s": f"{sum(one.timing_s for one in found.apart):.1f}",
        **report.machine(timed.machine),
    }


def _spreads(model: str, repeats: Sequence[Repeat]) -> list[dict[str, str]]:
    own = [one for one in repeats if one.model == model]
    rows = []
    for way, logs in (
        ("paired", [math.log(one.paired.interval.estimate) for one in own]),
        ("paired, started first / other", [one.first_log for one in own]),
        ("solo, one after the other", [math.log(one.solo.interval.estimate) for one in own if one.solo]),
    ):
        if not logs:
            continue
        found = spread(logs)
        rows.append(
            {
                "model": model,
                "timed": way,
                "sessions": str(found.count),
                "sd": percent(found.sd),
                "mean": percent(found.mean),
                "standard error": percent(found.standard_error),
            }
        )
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
