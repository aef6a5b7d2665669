"""The tutorial's own loops against the best that keeps the arithmetic: one epoch and one evaluation, by the harness.

The variant ``tutorial`` has the tutorial's loaders and plain optimizer; ``BEST`` are the fastest known of each model
(docs/log.md, 2026-11-30), of which an epoch each says which is the best here. What it takes to compile is not in the
epoch (the tables say it). Fresh processes, one after the other in the order ABBA, with the same seed. By default under
the ``tutorial`` recipe, which scores the 60,000 training images as the tutorial does. Exit code 0: the bars hold;
1: one does not.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import report
from bench.bars import Bar, tutorial_bar
from bench.live import EAGER, Trained, Workshop, train
from mnist_bench.records import BUILTIN_VARIANTS, Variant

TUTORIAL = BUILTIN_VARIANTS["tutorial"]
COMPILED = replace(BUILTIN_VARIANTS["compile"], channels_last=True, fast_layers=True)
STEP = replace(BUILTIN_VARIANTS["compile-step"], channels_last=True)
OPTIONS = {"realize_opcount_threshold": 1}  # no tanh within a loop over six channels, half a vector
BEST = {
    "lenet5": (STEP, replace(STEP, fast_layers=True, compile=replace(STEP.compile, options=OPTIONS))),
    "cnn": (COMPILED, replace(COMPILED, onednn_linear=True)),
    "mlp": (EAGER, replace(EAGER, onednn_linear=True)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopPair:
    """The same epoch and evaluation by each of the two."""

    model: str
    pair: int
    best: Trained
    tutorial: Trained

    @property
    def log_ratio(self) -> float:
        return math.log(seconds(self.tutorial) / seconds(self.best))


def main(argv: Sequence[str] | None = None) -> int:
    flags = report.parser(__doc__, report.MODELS)
    add_flags(flags)
    args = flags.parse_args(argv)
    return report.conduct("tutorial_loop", args, lambda workshop, samples: prove(args, workshop, samples))


def add_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument(
        "--tutorial-pairs", type=report.count, default=4, help="pairs against the tutorial's loops (default: 4)"
    )
    flags.add_argument(
        "--recipe", choices=("tutorial", "standard"), default="tutorial", help="of that comparison (default: tutorial)"
    )


def prove(args: argparse.Namespace, workshop: Workshop, samples: list[Any]) -> tuple[Bar, ...]:
    pairs: list[LoopPair] = []
    best = {model: quickest(model, workshop, args.recipe) for model in args.models}
    for number in range(args.tutorial_pairs):
        for model in args.models:
            pairs.append(found := train_pair(model, best[model], number, workshop, args.recipe))
            samples.append(found)
            report.say(f"{model} {number + 1}/{args.tutorial_pairs}: tutorial / best {math.exp(found.log_ratio):.2f}")
    report.print_rows(f"one epoch and one evaluation, {args.recipe} recipe", [_row(pair) for pair in pairs])
    return judge(args.models, pairs)


def quickest(model: str, workshop: Workshop, recipe: Any) -> Variant:
    """Of what is the best on some machine, what takes least here."""
    candidates = [replace(one, name=f"best-{number}") for number, one in enumerate(BEST[model], start=1)]
    took = [seconds(train(workshop.spec(model, one, 0, recipe=recipe), workshop)) for one in candidates]
    told = (f"{one.name} {value:.2f} s" for one, value in zip(candidates, took, strict=True))
    report.say(f"{model}: {', '.join(told)}")
    return candidates[took.index(min(took))]


def train_pair(model: str, variant: Variant, number: int, workshop: Workshop, recipe: Any) -> LoopPair:
    """The best first in even pairs, the tutorial's loops first in odd ones."""
    best, tutorial = (workshop.spec(model, one, number, recipe=recipe) for one in (variant, TUTORIAL))
    in_turn = (best, tutorial) if number % 2 == 0 else (tutorial, best)
    trained = {spec.id: train(spec, workshop) for spec in in_turn}
    return LoopPair(model=model, pair=number, best=trained[best.id], tutorial=trained[tutorial.id])


def judge(models: Sequence[str], pairs: Sequence[LoopPair]) -> tuple[Bar, ...]:
    return tuple(tutorial_bar(model, [pair.log_ratio for pair in pairs if pair.model == model]) for model in models)


def seconds(trained: Trained) -> float:
    """Training and evaluation, summed."""
    epochs = trained.measurement.epochs
    return sum(epochs.train_s) + sum(epochs.eval_s)


def _row(pair: LoopPair) -> dict[str, Any]:
    times = {
        f"{name} {part}": f"{sum(values):.2f}"
        for name, trained in (("tutorial", pair.tutorial), ("best", pair.best))
        for part, values in (
            ("train s", trained.measurement.epochs.train_s),
            ("eval s", trained.measurement.epochs.eval_s),
        )
    }
    return {
        "model": pair.model,
        "pair": pair.pair + 1,
        **times,
        "ratio": math.exp(pair.log_ratio),
        "accuracy": f"{pair.tutorial.measurement.epochs.accuracy[-1]:.4f} "
        f"{pair.best.measurement.epochs.accuracy[-1]:.4f}",
        "steal": f"{max(pair.tutorial.machine['steal'], pair.best.machine['steal']):.1%}",
        "load": f"{pair.tutorial.machine['load_1min']:.2f}",
    }


if __name__ == "__main__":
    raise SystemExit(main())
