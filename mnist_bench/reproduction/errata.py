"""What each erratum of the tutorial costs in accuracy. Pure arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mnist_bench.records import ImageSets, Measurement, Trial
from mnist_bench.reproduction.matrices import CNN, CNN_SNIPPET, MLP
from mnist_bench.reproduction.published import PROMISED_MLP_PERCENT
from mnist_bench.reproduction.verdicts import ModelFigures, signed


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrataRow:
    """One entry after its last epoch (percent, means over seeds): the same weights on both image sets.

    ``train`` is what the tutorial publishes as test accuracy (erratum 1). ``standard`` is the test accuracy with the
    right normalisation (erratum 2), of one seed; None where the entry has no such run.
    """

    name: str
    published: float
    train: float
    test: float
    standard: float | None

    @property
    def erratum_1(self) -> float:
        """What scoring the training images adds (pp)."""
        return self.train - self.test

    @property
    def erratum_2(self) -> float | None:
        """What the second scaling of the inputs adds (pp; negative: it costs accuracy)."""
        return None if self.standard is None else self.test - self.standard


def errata_rows(
    models: Sequence[ModelFigures], tutorial: Sequence[Trial], standard: Sequence[Trial]
) -> tuple[ErrataRow, ...]:
    """One row per entry whose seeds were scored on both sets.

    Args:
        models: the entries.
        tutorial: trials with the recipe ``tutorial``.
        standard: trials with the recipe ``standard``.
    """
    rows = []
    for model in models:
        if sets := _final(tutorial, model.name):
            mended = _final(standard, model.name)
            row = ErrataRow(
                name=model.name,
                published=model.final.published,
                train=100 * statistics.fmean(each.train for each in sets),
                test=100 * statistics.fmean(each.test for each in sets),
                standard=100 * statistics.fmean(each.test for each in mended) if mended else None,
            )
            rows.append(row)
    return tuple(rows)


def _final(trials: Sequence[Trial], name: str) -> list[ImageSets]:
    outcomes = [trial.outcome for trial in trials if trial.cell.model == name]
    return [outcome.final for outcome in outcomes if isinstance(outcome, Measurement) and outcome.final is not None]


def errata_remarks(rows: Sequence[ErrataRow]) -> tuple[str, ...]:
    """Each erratum in a sentence, with its figures; what was not measured is left out."""
    by_name = {row.name: row for row in rows}
    remarks = []
    if rows:
        costs = ", ".join(f"{row.name} {signed(row.erratum_1)} pp" for row in rows)
        remarks.append(f"Erratum 1 (scored on the training images; the same weights on the test images): {costs}.")
    if mended := [(row.name, row.erratum_2) for row in rows if row.erratum_2 is not None]:
        costs = ", ".join(f"{name} {signed(cost)} pp" for name, cost in mended)
        remarks.append(f"Erratum 2 (inputs scaled twice; test images, one standard seed): {costs}.")
    if mlp := by_name.get(MLP.name):
        remarks.append(
            f"Erratum 3 (the text promises {PROMISED_MLP_PERCENT} % for mlp, its table ends lower): "
            f"{mlp.train:.2f} % measured as published, {mlp.test:.2f} % on the test images."
        )
    if (listing := by_name.get(CNN.name)) and (snippet := by_name.get(CNN_SNIPPET.name)):
        remarks.append(
            f"Erratum 4 (lr 0.01 in the snippet, 0.001 in the listing): lr 0.01 changes the test accuracy of cnn by "
            f"{signed(snippet.test - listing.test)} pp."
        )
    remarks.append("Erratum 5 (said to be Keras, is PyTorch): costs nothing.")
    return tuple(remarks)
