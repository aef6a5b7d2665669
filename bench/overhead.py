"""What the harness costs: against a plain hand-written loop, within its own epochs, and against the tutorial's loops.

steps     process pairs that share a token, one side the harness (eager), the other ``bench.plain_loop``: the statistic
          of a pair is the median over its rounds of ln(seconds per step, harness / plain)
epochs    real training epochs: what is neither a step nor a wait for a batch, inside the timed span and around it
tutorial  ``bench.tutorial_loop``

All on the CPU, batch 100. Exit code 0: every bar holds; 1: one does not.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import report, tutorial_loop
from bench.bars import Bar, outside_bar, step_bars
from bench.live import EAGER, PLAIN, Timed, Trained, Workshop, time_session, train
from mnist_bench import stats
from mnist_bench.analysis import ratios

PARTS = ("steps", "epochs", "tutorial")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPair:
    """One process pair: ``log_ratio`` is the median over its rounds of ln(harness / plain)."""

    model: str
    pair: int
    log_ratio: float
    timed: Timed


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochCost:
    """One epoch in seconds: ``span_s`` is its timed span, ``call_s`` the whole request."""

    model: str
    epoch: int
    call_s: float
    span_s: float
    loader_s: float
    step_s: float

    @property
    def outside_span(self) -> float:
        """Inside the span, neither step nor wait for a batch, as a share of the span."""
        return (self.span_s - self.loader_s - self.step_s) / self.span_s

    @property
    def around_span(self) -> float:
        """The rest of the request (order, audits, the pipe), as a share of the span."""
        return (self.call_s - self.span_s) / self.span_s

    @property
    def outside(self) -> float:
        return self.outside_span + self.around_span


def main(argv: Sequence[str] | None = None) -> int:
    flags = report.parser(__doc__, report.MODELS)
    flags.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    flags.add_argument("--pairs", type=report.count, default=30, help="process pairs a model (default: 30)")
    flags.add_argument("--budget", type=float, default=6.0, help="token seconds of a side of a pair (default: 6)")
    flags.add_argument("--epochs", type=report.count, default=3, help="epochs whose parts are added up (default: 3)")
    tutorial_loop.add_flags(flags)
    args = flags.parse_args(argv)
    return report.conduct("overhead", args, lambda workshop, samples: prove(args, workshop, samples))


def prove(args: argparse.Namespace, workshop: Workshop, samples: list[Any]) -> tuple[Bar, ...]:
    bars: tuple[Bar, ...] = ()
    if "steps" in args.parts:
        bars += prove_steps(args, workshop, samples)
    if "epochs" in args.parts:
        bars += prove_epochs(args, workshop, samples)
    if "tutorial" in args.parts:
        bars += tutorial_loop.prove(args, workshop, samples)
    return bars


def prove_steps(args: argparse.Namespace, workshop: Workshop, samples: list[Any]) -> tuple[Bar, ...]:
    pairs: list[StepPair] = []
    for number in range(args.pairs):
        for model in args.models:
            pairs.append(found := time_pair(model, number, workshop, budget_s=args.budget))
            samples.append(found)
            ratio = stats.Interval(found.log_ratio).exp().estimate
            report.say(f"{model} {number + 1}/{args.pairs}: {ratio:.4f} in {len(found.timed.session.rounds)} rounds")
    report.print_rows("harness / plain loop, seconds per step", [_step_row(model, pairs) for model in args.models])
    return tuple(bar for model in args.models for bar in step_bars(model, logs_of(model, pairs)))


def time_pair(model: str, number: int, workshop: Workshop, *, budget_s: float) -> StepPair:
    """A fresh process of each side; which of them starts first alternates."""
    specs = [workshop.spec(model, variant, number) for variant in (EAGER, replace(EAGER, name=PLAIN))]
    in_turn = specs if number % 2 == 0 else specs[::-1]
    timed = time_session(in_turn, workshop, precision=0.0, budget_s=budget_s, reference=PLAIN)
    return step_pair(model, number, timed, specs[0].id)


def step_pair(model: str, number: int, timed: Timed, harness: str) -> StepPair:
    """What the session of two says; ``harness`` is the trial id of the harness's side, whichever place it has."""
    (plain,) = (member for member in timed.session.members if member != harness)
    members = timed.session.members
    logs = ratios.round_log_ratios(timed.session.rounds, members.index(harness), members.index(plain))
    return StepPair(model=model, pair=number, log_ratio=stats.median(logs), timed=timed)


def logs_of(model: str, pairs: Sequence[StepPair]) -> list[float]:
    return [pair.log_ratio for pair in pairs if pair.model == model]


def _step_row(model: str, pairs: Sequence[StepPair]) -> dict[str, Any]:
    ratio = stats.hodges_lehmann(logs_of(model, pairs)).exp()
    own = [pair.timed for pair in pairs if pair.model == model]
    noisiest = max(own, key=lambda timed: timed.machine.get("others", 0.0))
    return {
        "model": model,
        "pairs": len(own),
        "rounds a pair": stats.median([len(timed.session.rounds) for timed in own]),
        "ratio": ratio.estimate,
        "low": ratio.low,
        "high": ratio.high,
        **{f"worst {name}": value for name, value in report.machine(noisiest.machine).items()},
    }


def prove_epochs(args: argparse.Namespace, workshop: Workshop, samples: list[Any]) -> tuple[Bar, ...]:
    costs: list[EpochCost] = []
    for model in args.models:
        trained = train(workshop.spec(model, EAGER, 0, epochs=args.epochs), workshop)
        costs += epoch_costs(model, trained)
        samples.append(trained)
        report.say(f"{model}: {args.epochs} epochs trained")
    report.print_rows("where an epoch's seconds go", [_epoch_row(cost) for cost in costs])
    return tuple(outside_bar(model, [cost.outside for cost in costs if cost.model == model]) for model in args.models)


def epoch_costs(model: str, trained: Trained) -> list[EpochCost]:
    epochs = trained.measurement.epochs
    parts = zip(trained.call_s, epochs.train_s, epochs.loader_s, trained.step_s, strict=True)
    return [
        EpochCost(model=model, epoch=epoch, call_s=call_s, span_s=span_s, loader_s=loader_s, step_s=step_s)
        for epoch, (call_s, span_s, loader_s, step_s) in enumerate(parts)
    ]


def _epoch_row(cost: EpochCost) -> dict[str, Any]:
    return {
        "model": cost.model,
        "epoch": cost.epoch + 1,
        "request s": cost.call_s,
        "span s": cost.span_s,
        "steps s": cost.step_s,
        "loader s": cost.loader_s,
        "span less both": f"{cost.outside_span:.3%}",
        "request less span": f"{cost.around_span:.3%}",
        "outside": f"{cost.outside:.3%}",
    }


if __name__ == "__main__":
    raise SystemExit(main())
