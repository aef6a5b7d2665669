"""The tutorial's experiments: what is run, and what was measured beside what was published. Pure.

The published figures (``published.csv``) are accuracies in percent after each of epochs 0 to 9, of the training images
(erratum 1).
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from mnist_bench import stats
from mnist_bench.analysis.results import machine
from mnist_bench.analysis.summary import Run
from mnist_bench.errors import UsageError
from mnist_bench.models import training_of
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    TRAIN_IMAGES,
    ImageSets,
    Limits,
    Manifest,
    Matrix,
    Measurement,
    ModelEntry,
    Timing,
    Trial,
)
from mnist_bench.table import Column, Document, Table

if TYPE_CHECKING:
    import altair as alt

Published = Mapping[str, tuple[float, ...]]  # by model, one figure per epoch
Pipeline = Literal["resident", "tutorial"]

PROMISED_MLP_PERCENT = 99.81  # erratum 3: the text promises this; the table does not hold it
EPOCHS = 10
ONE_SEED_PP = 1.0  # of one seed, which shows no spread: this near is near
MOST_OUTSIDE = 0.1  # of the epochs, for a column to fit: a 95 % interval is left now and then
PLOT = "reproduction.svg"
MEANINGS = (
    "measured: the mean over seeds; range: their lowest and highest; diff: measured less published (pp). Epochs count "
    "from 0, as in the tutorial. All accuracies are those of the training images, as published (erratum 1).",
    "within the seeds' spread: the published figure lies in the 95 % prediction interval of one more seed, mean ± t s "
    "√(1 + 1/n), s at least the binomial deviation of 60,000 images. With one seed there is no spread: within 1 pp or "
    "not. A rate fits the column if the last epoch agrees and at most one epoch in ten does not.",
    "train and test: the same weights, trained by the tutorial's recipe, scored on the training images (as the "
    "tutorial does) and on the test images; erratum 1 is their difference. standard: the standard recipe on the test "
    "images, one seed; erratum 2 is test less standard.",
)

PUBLISHED, MEASURED = "published", "measured (mean, range over seeds)"
COLORS = ("#d55e00", "#0072b2")  # apart for the colour-blind too (Okabe and Ito)

MLP, CNN, LENET5 = (ModelEntry(name=name, model=name) for name in ("mlp", "cnn", "lenet5"))
# Erratum 4: the text's snippet passes 0.01 to Adam, the complete listing leaves it at 0.001.
CNN_SNIPPET = ModelEntry(name="cnn-lr0.01", model="cnn", lr=0.01)

# The same arithmetic in the same order; ``tutorial`` loops as the tutorial does, and is slower.
VARIANTS = {"resident": BUILTIN_VARIANTS["eager"], "tutorial": BUILTIN_VARIANTS["tutorial"]}


def tutorial_matrix(pipeline: Pipeline) -> Matrix:
    """The tutorial's experiments as published: three seeds of ten epochs, batch 100, on the CPU, without sessions."""
    return Matrix(
        name="reproduce",
        dataset="mnist",
        recipe="tutorial",
        epochs=EPOCHS,
        seeds=(0, 1, 2),
        models=(MLP, CNN, CNN_SNIPPET, LENET5),
        devices=("cpu",),
        batch_sizes=(100,),
        variants=(VARIANTS[pipeline],),
        timing=Timing(budget_seconds=0.0),
        limits=Limits(timeout_seconds=7200.0),
    )


def standard_matrix(tutorial: Matrix) -> Matrix:
    """The same for the models that erratum 2 concerns, with the errata mended: the first seed alone."""
    return replace(
        tutorial, name="reproduce-standard", recipe="standard", seeds=tutorial.seeds[:1], models=(CNN, LENET5)
    )


def read() -> Published:
    """The figures that this package ships: of this room, the one function that reads a file."""
    return parse(resources.files(__package__).joinpath("published.csv").read_text("utf-8"))


def parse(text: str) -> Published:
    """From lines ``model,epoch,accuracy_percent`` to the columns of the tutorial's tables.

    Raises:
        ValueError: an epoch is missing or out of order.

    >>> parse("model,epoch,accuracy_percent\\nmlp,0,84.11\\nmlp,1,87.53\\n")
    {'mlp': (84.11, 87.53)}
    """
    columns: dict[str, tuple[float, ...]] = {}
    for line in csv.DictReader(io.StringIO(text)):
        before = columns.get(line["model"], ())
        if int(line["epoch"]) != len(before):
            raise ValueError(f"{line['model']}: epoch {line['epoch']} where {len(before)} is due")
        columns[line["model"]] = (*before, float(line["accuracy_percent"]))
    return columns


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFigures:
    """One epoch: published, and measured by each seed (percent). ``low`` and ``high`` bound what would agree."""

    epoch: int
    published: float
    measured: tuple[float, ...]
    low: float
    high: float

    @property
    def mean(self) -> float:
        return statistics.fmean(self.measured)

    @property
    def difference(self) -> float:
        """Measured less published (pp)."""
        return self.mean - self.published

    @property
    def inside(self) -> bool:
        return self.low <= self.published <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """One entry (``name``) beside the published column of ``model``. ``epochs`` is not empty."""

    name: str
    model: str
    lr: float
    seeds: tuple[int, ...]
    epochs: tuple[EpochFigures, ...]

    @property
    def final(self) -> EpochFigures:
        return self.epochs[-1]

    @property
    def outside(self) -> int:
        """How many epochs' published figures lie outside."""
        return sum(not each.inside for each in self.epochs)

    @property
    def rms(self) -> float:
        """The root mean square, over epochs, of measured less published (pp)."""
        return math.sqrt(statistics.fmean(each.difference**2 for each in self.epochs))

    @property
    def verdict(self) -> str:
        """On the last epoch."""
        if len(self.seeds) > 1:
            return "within the seeds' spread" if self.final.inside else "outside the seeds' spread"
        return "within 1 pp (one seed)" if self.final.inside else "over 1 pp off (one seed)"

    @property
    def fits(self) -> bool:
        """Whether the whole column agrees: the last epoch does, and of all at most one in ten does not."""
        return self.final.inside and self.outside <= MOST_OUTSIDE * len(self.epochs)


def model_figures(entry: ModelEntry, trials: Sequence[Trial], published: Published) -> ModelFigures | None:
    """An entry's seeds that went well beside its published column, as far as both go; None where no seed did.

    Args:
        entry: of the matrix.
        trials: of the run with the recipe ``tutorial``.
        published: the tutorial's columns.
    """
    ok = [(t.seed, t.outcome) for t in trials if t.cell.model == entry.name and isinstance(t.outcome, Measurement)]
    if not ok:
        return None
    by_epoch = zip(*(outcome.epochs.accuracy for _, outcome in ok), strict=True)
    pairs = zip(published[entry.model], by_epoch, strict=False)  # a short look has fewer epochs than the tutorial
    return ModelFigures(
        name=entry.name,
        model=entry.model,
        lr=training_of(entry, "tutorial").lr,
        seeds=tuple(sorted(seed for seed, _ in ok)),
        epochs=tuple(_epoch(number, figure, accuracies) for number, (figure, accuracies) in enumerate(pairs)),
    )


def _epoch(number: int, published: float, accuracies: Sequence[float]) -> EpochFigures:
    measured = tuple(100 * accuracy for accuracy in accuracies)
    low, high = agreeing(accuracies)
    return EpochFigures(epoch=number, published=published, measured=measured, low=low, high=high)


def agreeing(accuracies: Sequence[float]) -> tuple[float, float]:
    """Which published figures (percent) agree with the seeds' accuracies (fractions).

    With several seeds the 95 % prediction interval of one more seed: mean +- t s sqrt(1 + 1/n). The standard deviation
    s is at least the binomial one of the 60,000 images that are scored: seeds that happen to agree are not a narrow
    interval. With one seed, ``ONE_SEED_PP`` either side. No accuracy lies outside 0 and 100.
    """
    if len(accuracies) == 1:
        low, high = accuracies[0] - ONE_SEED_PP / 100, accuracies[0] + ONE_SEED_PP / 100
    else:
        mean = statistics.fmean(accuracies)
        low, high = stats.prediction_interval(accuracies, variance_floor=mean * (1 - mean) / TRAIN_IMAGES)
    return max(0.0, 100 * low), min(100.0, 100 * high)


def rate_answer(rates: Sequence[ModelFigures]) -> str:
    """Answers erratum 4, with the evidence; empty while not both rates were measured.

    Args:
        rates: the entries of ``cnn``, one per rate.
    """
    if len(rates) < 2:
        return ""
    fits = " and ".join(f"lr {each.lr:g}" for each in rates if each.fits) or "neither rate"
    closest = min(rates, key=lambda each: each.rms)
    words = f"The published cnn column fits {fits}; lr {closest.lr:g} is the closer."
    return " ".join([words, *map(_evidence, rates)])


def _evidence(rate: ModelFigures) -> str:
    final, count = rate.final, len(rate.epochs)
    return (
        f"lr {rate.lr:g}: rms difference {rate.rms:.2f} pp; inside at {count - rate.outside} of {count} epochs; after "
        f"epoch {final.epoch} {final.mean:.2f} % measured, {final.published:.2f} % published, {rate.verdict} (anything "
        f"from {final.low:.1f} to {final.high:.1f} % would agree)."
    )


def signed(points: float | None) -> str:
    """A difference in percentage points, as ``+0.30``; what rounds to nothing is ``+0.00``, never ``-0.00``."""
    return "" if points is None else f"{round(points, 2) + 0.0:+.2f}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """``tutorial`` and ``standard`` are the two runs; ``missing`` says of each trial without figures why."""

    tutorial: Manifest
    standard: Manifest
    models: tuple[ModelFigures, ...]
    rate: str  # the answer to erratum 4
    errata: tuple[ErrataRow, ...]
    missing: tuple[str, ...]
    work_s: float  # seconds that the trials had the machine

    @property
    def remarks(self) -> tuple[str, ...]:
        """The answer to erratum 4, then each erratum in a sentence."""
        return (*([self.rate] if self.rate else []), *errata_remarks(self.errata))


def reproduction(published: Published, tutorial: Run, standard: Run) -> Reproduction:
    """Measured beside published, as far as the two runs have got.

    Raises:
        UsageError: the data set is not MNIST: of other images nothing was published.
    """
    manifest, runs = tutorial.manifest, (tutorial, standard)
    if any(run.manifest.dataset.name != "mnist" for run in runs):
        raise UsageError(f"run {manifest.run_id} was not made with MNIST: there is nothing published to compare with")
    found = [model_figures(entry, tutorial.trials, published) for entry in manifest.matrix.models]
    models = tuple(each for each in found if each is not None)
    every = [trial for run in runs for trial in run.trials]
    failed = (f"{trial.recipe} {trial.id}: {trial.status}: {trial.reason}" for trial in every if trial.reason)
    pending = (f"{run.manifest.matrix.recipe} {name}: not yet run" for run in runs for name in run.pending)
    return Reproduction(
        tutorial=manifest,
        standard=standard.manifest,
        models=models,
        rate=rate_answer([each for each in models if each.model == CNN.name]),
        errata=errata_rows(models, tutorial.trials, standard.trials),
        missing=(*failed, *pending),
        work_s=sum(trial.outcome.token_s for trial in every if isinstance(trial.outcome, Measurement)),
    )


def document(result: Reproduction) -> Document:
    """The result for people: epoch by epoch, after the last epoch, what the errata cost."""
    epochs = [Table(_title(model), _EPOCHS, list(_epochs(model))) for model in result.models]
    final = [next(reversed(list(_epochs(model)))) for model in result.models]
    return Document(
        title="The tutorial, reproduced",
        facts=(" · ".join(_setting(result)), *(["Not complete: figures are missing."] if result.missing else [])),
        tables=(
            *epochs,
            Table("After the last epoch (accuracy in percent)", _VERDICTS, final),
            Table("What the errata cost (accuracy in percent after the last epoch)", _ERRATA, result.errata),
        ),
        notes=(*result.remarks, *MEANINGS, *(f"missing: {line}" for line in result.missing)),
    )


def page(result: Reproduction) -> str:
    """``reproduction.md``: the document, and the plot that lies beside it."""
    return f"{document(result).markdown()}\n![Accuracy by epoch, published and measured]({PLOT})\n"


def epochs_table(result: Reproduction) -> Table[tuple[ModelFigures, EpochFigures]]:
    """A line per entry and epoch, for CSV and JSON."""
    return Table("", (*_MODEL, *_EPOCHS), [line for model in result.models for line in _epochs(model)])


def to_json(result: Reproduction) -> dict[str, Any]:
    """The whole result as JSON values."""
    final = [next(reversed(list(_epochs(model)))) for model in result.models]
    return {
        "runs": {"tutorial": result.tutorial.run_id, "standard": result.standard.run_id},
        "status": {"tutorial": result.tutorial.status, "standard": result.standard.status},
        "dataset_sha256": result.tutorial.dataset.sha256,
        "pipeline": result.tutorial.matrix.variants[0].pipeline,
        "seeds": list(result.tutorial.matrix.seeds),
        "work_s": round(result.work_s, 1),
        "verdicts": Table("", (*_MODEL, *_VERDICTS), final).records(),
        "cnn_rate": result.rate,
        "epochs": epochs_table(result).records(),
        "errata": Table("", _ERRATA, result.errata).records(),
        "remarks": list(result.remarks),
        "missing": list(result.missing),
    }


def _epochs(model: ModelFigures) -> Iterator[tuple[ModelFigures, EpochFigures]]:
    return ((model, each) for each in model.epochs)


def _title(model: ModelFigures) -> str:
    return f"{model.name}, lr {model.lr:g}, {len(model.seeds)} seed{'s' * (len(model.seeds) != 1)}"


def _setting(result: Reproduction) -> list[str]:
    manifest, matrix = result.tutorial, result.tutorial.matrix
    return [
        f"Runs {manifest.run_id} (tutorial recipe) and {result.standard.run_id} (standard recipe)",
        f"MNIST ({manifest.dataset.sha256[:12]})",
        f"{matrix.epochs} epoch{'s' * (matrix.epochs != 1)}, batch {matrix.batch_sizes[0]}",
        f"seed{'s' * (len(matrix.seeds) != 1)} {', '.join(map(str, matrix.seeds))}",
        f"pipeline {matrix.variants[0].pipeline}",
        *machine(manifest.environment),
        f"{result.work_s / 60:.1f} min of work",
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _range(each: EpochFigures) -> str:
    several = len(each.measured) > 1
    return f"{min(each.measured):.2f}-{max(each.measured):.2f}" if several else ""


def _rounded(value: float | None) -> float | None:
    """To what 60,000 images can tell apart, and a digit."""
    return None if value is None else round(value, 4) + 0.0  # no -0.0


Line = tuple[ModelFigures, EpochFigures]

_MODEL: tuple[Column[Line], ...] = (
    Column("model", right=False, key="model", value=lambda line: line[0].name),
    Column(None, key="lr", value=lambda line: line[0].lr),
    Column(None, key="seeds", value=lambda line: len(line[0].seeds)),
)
_COMPARED: tuple[Column[Line], ...] = (
    Column(
        "published", lambda line: _percent(line[1].published), key="published", value=lambda line: line[1].published
    ),
    Column("measured", lambda line: _percent(line[1].mean), key="measured", value=lambda line: _rounded(line[1].mean)),
    Column("range", lambda line: _range(line[1]), rank=1),
    Column(None, key="measured_min", value=lambda line: _rounded(min(line[1].measured))),
    Column(None, key="measured_max", value=lambda line: _rounded(max(line[1].measured))),
    Column(
        "diff",
        lambda line: signed(line[1].difference),
        key="difference_pp",
        value=lambda line: _rounded(line[1].difference),
    ),
)
_EPOCHS: tuple[Column[Line], ...] = (
    Column("epoch", key="epoch", value=lambda line: line[1].epoch),
    *_COMPARED,
    Column("would agree", lambda line: f"{line[1].low:.2f} to {line[1].high:.2f}", rank=2),
    Column(None, key="agrees_from", value=lambda line: _rounded(line[1].low)),
    Column(None, key="agrees_to", value=lambda line: _rounded(line[1].high)),
    Column("agrees", right=False, key="inside", value=lambda line: line[1].inside),
)
_VERDICTS: tuple[Column[Line], ...] = (
    Column("model", right=False, value=lambda line: line[0].name),
    *_COMPARED,
    Column("verdict", right=False, key="verdict", value=lambda line: line[0].verdict),
    Column(None, key="within", value=lambda line: line[1].inside),
    Column(None, key="rms_difference_pp", value=lambda line: _rounded(line[0].rms)),
    Column(None, key="epochs_outside", value=lambda line: line[0].outside),
)
_ERRATA: tuple[Column[ErrataRow], ...] = (
    Column("model", right=False, key="model", value=lambda row: row.name),
    Column("published", lambda row: _percent(row.published), key="published", value=lambda row: row.published),
    Column("train", lambda row: _percent(row.train), key="train", value=lambda row: _rounded(row.train)),
    Column("test", lambda row: _percent(row.test), key="test", value=lambda row: _rounded(row.test)),
    Column("standard", lambda row: _percent(row.standard), key="standard", value=lambda row: _rounded(row.standard)),
    Column("erratum 1", lambda row: signed(row.erratum_1), key="erratum_1", value=lambda row: _rounded(row.erratum_1)),
    Column("erratum 2", lambda row: signed(row.erratum_2), key="erratum_2", value=lambda row: _rounded(row.erratum_2)),
)


def chart(models: Sequence[ModelFigures]) -> alt.ConcatChart:
    """The plot: accuracy by epoch, published and measured, a panel per entry, each with a scale of its own."""
    import altair as alt

    drawn: alt.ConcatChart = (
        alt.concat(*map(_panel, models), columns=2)
        .configure_view(stroke=None)
        .configure_legend(orient="top", title=None, labelLimit=400, symbolOpacity=1)
        .configure_axis(gridColor="#e5e5e5", domainColor="#888", tickColor="#888")
        .properties(background="white")
    )
    return drawn


def _panel(model: ModelFigures) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=[each.epoch for each in model.epochs], format="d"))
    series = alt.Color("series:N", scale=alt.Scale(domain=[PUBLISHED, MEASURED], range=list(COLORS)))
    y = alt.Y("accuracy:Q", title="accuracy, %", scale=alt.Scale(zero=False))
    points = alt.Chart(alt.InlineData(values=_values(model)))
    band = points.mark_area(opacity=0.25).encode(x=x, y=alt.Y("low:Q", title="accuracy, %"), y2="high:Q", color=series)
    measured = points.transform_filter(alt.datum.series == MEASURED).mark_line(point=True)
    # Above the measured line, and with gaps: where the two agree, both are seen.
    published = points.transform_filter(alt.datum.series == PUBLISHED).mark_line(strokeDash=[4, 4], point=True)
    lines = [line.encode(x=x, y=y, color=series) for line in (measured, published)]
    return alt.layer(band, *lines).properties(width=320, height=220, title=f"{model.name}, lr {model.lr:g}")


def _values(model: ModelFigures) -> list[dict[str, object]]:
    published = [
        {"epoch": e.epoch, "series": PUBLISHED, "accuracy": e.published, "low": e.published, "high": e.published}
        for e in model.epochs
    ]
    measured = [
        {"epoch": e.epoch, "series": MEASURED, "accuracy": e.mean, "low": min(e.measured), "high": max(e.measured)}
        for e in model.epochs
    ]
    return [*published, *measured]
