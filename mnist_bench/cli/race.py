"""``mnist-bench race``: which variant of each model and device is the fastest."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mnist_bench.cells import AXES, reference_variant
from mnist_bench.cli import options
from mnist_bench.cli.console import add_to_summary, make_console, print_result, say
from mnist_bench.cli.run import begin, carry_out, resume, shortest
from mnist_bench.disk.folder import RunFolder
from mnist_bench.errors import UsageError
from mnist_bench.records import CLASSES, Matrix, Race, Variant
from mnist_bench.table import by_reason

if TYPE_CHECKING:
    from mnist_bench.running.group import Observer
    from mnist_bench.running.runner import RunPlan

DEFAULT_BUDGET = "5m"
OWN = ("seeds", "epochs", "data_dir", "class_", "threads", "across_batch_sizes", "budget", "reference", *AXES)


def _threads(text: str) -> tuple[int, ...]:
    return tuple(map(options.whole("--threads", 1, 1024), text.split(",")))


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "All variants of a model, device and batch size live together and take turns; one leaves as soon as it is "
        "shown to be slower than the leader. In 95 % of races the fastest is among those left, which are then trained. "
        "Writes a run folder, with race.md and race.json. Exit code 5: nothing raced."
    )
    options.add(parser, "matrix", *AXES, "reference", "allow_plugins")
    of_class = "A: the same arithmetic alone; B admits changed numerics (bf16, fp16, tf32) (default: A)"
    parser.add_argument("--class", dest="class_", choices=("A", "B"), help=of_class)
    parser.add_argument(
        "--threads", type=_threads, metavar="N,N", help="race every variant with each number of threads"
    )
    across = "batch sizes race each other too, by seconds an image"
    parser.add_argument("--across-batch-sizes", action="store_true", help=across)
    budget = f"wall time of the timing of each race, as in 90s, 5m, 1h (default: {DEFAULT_BUDGET})"
    parser.add_argument("--budget", metavar="TIME", help=budget)
    options.add_execution(parser, of="a race")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.analysis import race
    from mnist_bench.running.race import conduct

    errors = make_console(args, stderr=True)
    plan, run = carry_out(_resume(args) if args.resume else _new(args), args, errors, prelude=conduct)
    found = race.document(run)
    with plan.folder.lock():
        plan.folder.write_tables({"race.md": [found.markdown()], "race.json": [race.to_json(run)]})
    print_result(args, found, lambda: race.to_json(run), lambda: race.table(run).csv())
    add_to_summary(lambda room: (plan.folder.path / "race.md").read_bytes())
    if run.manifest.status == "interrupted":
        errors.print(f"interrupted; go on with: {options.resuming(args, run.manifest.run_id)}", soft_wrap=True)
        return 130
    if not args.quiet:
        errors.print(f"race: {shortest(plan.folder.path)}/race.md (and .json)", soft_wrap=True)
    if any(trial.status not in ("ok", "skipped") for trial in run.trials):
        return 1
    return 0 if run.sessions else options.NOTHING


def _new(args: argparse.Namespace) -> "Callable[[Observer], RunPlan]":
    """Refuses bad input now; the run's folder is made later, when the machine is ours."""
    from mnist_bench.gate.plan import parse_budget

    path, matrix = options.read_matrix(args)
    kind = Race(
        admitted=args.class_ or "A",
        across_batch_sizes=args.across_batch_sizes,
        budget_s=parse_budget(args.budget or DEFAULT_BUDGET),
    )
    return begin(args, path, _entered(_with_threads(matrix, args.threads or ()), kind), race=kind)


def _with_threads(matrix: Matrix, threads: Sequence[int]) -> Matrix:
    """Every variant with each number of threads; the reference is the one with the last of them.

    Raises:
        UsageError: the matrix has cells beside its axes.
    """
    if not threads:
        return matrix
    if matrix.include:
        raise UsageError("--threads: races the variants of the axis: remove include from the matrix")
    variants = tuple(
        replace(one, name=f"{one.name}-t{count}", threads=count) for one in matrix.variants for count in threads
    )
    reference = reference_variant(matrix)
    named = reference and f"{reference}-t{threads[-1]}"
    exclude = tuple(
        replace(one, variant=one.variant and f"{one.variant}-t{count}") for one in matrix.exclude for count in threads
    )
    return replace(matrix, variants=variants, reference=named, exclude=tuple(dict.fromkeys(exclude)))


def _entered(matrix: Matrix, kind: Race) -> Matrix:
    """The matrix without the variants whose class is not admitted, and without those that cannot take turns."""
    reasons = {one.name: _reason(one, kind) for one in matrix.variants}
    say(*by_reason(reasons.items()))
    kept = tuple(one for one in matrix.variants if not reasons[one.name])
    if len(kept) < 2 and not (kind.across_batch_sizes and len(matrix.batch_sizes) > 1):
        raise UsageError("variants: a race needs two or more: name them in the matrix or with --variants")
    gone = {name for name, reason in reasons.items() if reason}
    return replace(
        matrix,
        variants=kept,
        include=tuple(cell for cell in matrix.include if cell.variant not in gone),
        exclude=tuple(one for one in matrix.exclude if one.variant not in gone),
        reference=None if matrix.reference in gone else matrix.reference,
    )


def _reason(variant: Variant, kind: Race) -> str:
    if CLASSES[variant.precision] > kind.admitted:
        return "class B, not the same arithmetic, does not race (--class B admits it)"
    return "does not race: its loader processes would work while others have their turn" if variant.workers else ""


def _resume(args: argparse.Namespace) -> "Callable[[Observer], RunPlan]":
    options.refuse(args, OWN, "a resumed race goes on as it was started")
    folder = RunFolder.open(args.output_dir, args.resume)
    if folder.manifest().options.race is None:
        raise UsageError(f"--resume {args.resume}: is no race: mnist-bench run --resume {args.resume}")
    return resume(args, folder)
