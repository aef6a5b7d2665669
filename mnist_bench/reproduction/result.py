"""All that a reproduction says, from the lines on disk, and as rows and one JSON document. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mnist_bench.analysis.summary import Run
from mnist_bench.errors import UsageError
from mnist_bench.records import Manifest, Measurement, Trial
from mnist_bench.reproduction.errata import ErrataRow, errata_remarks, errata_rows
from mnist_bench.reproduction.published import Published
from mnist_bench.reproduction.verdicts import ModelFigures, RateAnswer, model_figures, rate_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """``tutorial`` and ``standard`` are the two runs; ``missing`` says of each trial without figures why."""

    tutorial: Manifest
    standard: Manifest
    models: tuple[ModelFigures, ...]
    rate: RateAnswer | None
    errata: tuple[ErrataRow, ...]
    remarks: tuple[str, ...]
    missing: tuple[str, ...]
    work_s: float  # seconds that the trials had the machine


def reproduction(
    published: Published, tutorial: tuple[Manifest, Sequence[Trial]], standard: tuple[Manifest, Sequence[Trial]]
) -> Reproduction:
    """Measured beside published, as far as the two runs have got.

    Raises:
        UsageError: the data set is not MNIST: of other images nothing was published.
    """
    manifest, trials = tutorial
    both = (tutorial, standard)
    every = [trial for _, own in both for trial in own]
    if any(run.dataset.name != "mnist" for run, _ in both):
        raise UsageError(f"run {manifest.run_id} was not made with MNIST: there is nothing published to compare with")
    found = [model_figures(entry, trials, published) for entry in manifest.matrix.models]
    models = tuple(each for each in found if each is not None)
    errata = errata_rows(models, trials, standard[1])
    return Reproduction(
        tutorial=manifest,
        standard=standard[0],
        models=models,
        rate=rate_answer([each for each in models if each.model == "cnn"]),
        errata=errata,
        remarks=errata_remarks(errata),
        missing=(
            *(f"{trial.recipe} {trial.id}: {trial.status}: {trial.reason}" for trial in every if trial.reason),
            *(
                f"{run.matrix.recipe} {name}: not yet run"
                for run, own in both
                for name in Run(manifest=run, trials=own, sessions=()).pending
            ),
        ),
        work_s=sum(trial.outcome.token_s for trial in every if isinstance(trial.outcome, Measurement)),
    )


def epoch_records(result: Reproduction) -> list[dict[str, object]]:
    """One record per entry and epoch, for CSV and JSON."""
    return [
        {
            "model": model.name,
            "lr": model.lr,
            "seeds": len(model.seeds),
            "epoch": each.epoch,
            "published_percent": each.published,
            "measured_percent": _rounded(each.mean),
            "measured_min_percent": _rounded(min(each.measured)),
            "measured_max_percent": _rounded(max(each.measured)),
            "difference_pp": _rounded(each.difference),
            "agrees_from_percent": _rounded(each.low),
            "agrees_to_percent": _rounded(each.high),
            "inside": each.inside,
        }
        for model in result.models
        for each in model.epochs
    ]


def document(result: Reproduction) -> dict[str, Any]:
    """The whole result as JSON values."""
    return {
        "runs": {"tutorial": result.tutorial.run_id, "standard": result.standard.run_id},
        "status": {"tutorial": result.tutorial.status, "standard": result.standard.status},
        "dataset_sha256": result.tutorial.dataset.sha256,
        "pipeline": result.tutorial.matrix.variants[0].pipeline,
        "seeds": list(result.tutorial.matrix.seeds),
        "work_s": round(result.work_s, 1),
        "verdicts": [
            {
                "model": model.name,
                "lr": model.lr,
                "seeds": list(model.seeds),
                "verdict": model.verdict,
                "within": model.final.inside,
                "difference_pp": _rounded(model.final.difference),
                "rms_difference_pp": _rounded(model.rms),
                "epochs_outside": model.outside,
            }
            for model in result.models
        ],
        "cnn_rate": None if result.rate is None else asdict(result.rate),
        "epochs": epoch_records(result),
        "errata": [
            {
                "model": row.name,
                "published_percent": row.published,
                "training_images_percent": _rounded(row.train),
                "test_images_percent": _rounded(row.test),
                "standard_test_images_percent": _rounded(row.standard),
                "erratum_1_pp": _rounded(row.erratum_1),
                "erratum_2_pp": _rounded(row.erratum_2),
            }
            for row in result.errata
        ],
        "remarks": list(result.remarks),
        "missing": list(result.missing),
    }


def _rounded(value: float | None) -> float | None:
    """To what 60,000 images can tell apart, and a digit."""
    return None if value is None else round(value, 4) + 0.0  # no -0.0


def _pending(run: Manifest, own: Sequence[Trial]) -> tuple[str, ...]:
    return Run(manifest=run, trials=own, sessions=()).pending
