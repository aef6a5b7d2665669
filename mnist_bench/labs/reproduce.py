"""The tutorial's experiments: what is run, and what was measured beside what was published. Pure.

The published figures (``published.csv``) are accuracies in percent after each of epochs 0 to 9, of the training images
(erratum 1).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mnist_bench import stats
from mnist_bench.analysis.results import machine
from mnist_bench.analysis.summary import Run
from mnist_bench.catalogue import training_of
from mnist_bench.errors import UsageError
from mnist_bench.records import (
    BUILTIN_VARIANTS,
    TRAIN_IMAGES,
    Limits,
    Matrix,
    Measurement,
    ModelEntry,
    Timing,
    Trial,
)
from mnist_bench.table import Column, Document, Table

if TYPE_CHECKING:
    import altair as alt

Published = Mapping[str, Sequence[float]]  # by model, one figure per epoch
Pipeline = Literal["resident", "tutorial"]
T = TypeVar("T")

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
    """The columns of the tutorial's tables, which this package ships: of this room, all that reads a file."""
    columns: dict[str, list[float]] = {}
    for line in csv.DictReader(resources.files(__package__).joinpath("published.csv").read_text("utf-8").splitlines()):
        columns.setdefault(line["model"], []).append(float(line["accuracy_percent"]))
    return columns


# ── what was measured ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch of the entry ``name``: published, and measured by each seed (percent)."""

    name: str
    lr: float
    number: int
    published: float
    measured: Sequence[float]

    @property
    def mean(self) -> float:
        return fmean(self.measured)

    @property
    def difference(self) -> float:
        """Measured less published (pp)."""
        return self.mean - self.published

    @property
    def agreeing(self) -> tuple[float, float]:
        """Which published figures would agree."""
        return agreeing(self.measured)

    @property
    def inside(self) -> bool:
        low, high = self.agreeing
        return low <= self.published <= high


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An entry of the matrix beside the published column of ``model``.

    Args:
        epochs: is not empty.
        train, test: accuracy after the last epoch, of the same weights on both image sets (percent, means over seeds);
            None: they were not scored on both. ``train`` is what the tutorial publishes as test accuracy (erratum 1).
        standard: on the test images with the right normalisation (erratum 2), of one seed; None: there is no such run.
    """

    name: str
    model: str
    epochs: Sequence[Epoch]
    train: float | None = None
    test: float | None = None
    standard: float | None = None

    @property
    def final(self) -> Epoch:
        return self.epochs[-1]

    @property
    def lr(self) -> float:
        return self.final.lr

    @property
    def title(self) -> str:
        return f"{self.name}, lr {self.lr:g}"

    @property
    def outside(self) -> int:
        """How many epochs' published figures lie outside."""
        return sum(not each.inside for each in self.epochs)

    @property
    def rms(self) -> float:
        """The root mean square, over epochs, of measured less published (pp)."""
        return math.sqrt(fmean(each.difference**2 for each in self.epochs))

    @property
    def verdict(self) -> str:
        """On the last epoch."""
        if len(self.final.measured) > 1:
            return f"{'within' if self.final.inside else 'outside'} the seeds' spread"
        return "within 1 pp (one seed)" if self.final.inside else "over 1 pp off (one seed)"

    @property
    def fits(self) -> bool:
        """Whether the whole column agrees: the last epoch does, and of all at most one in ten does not."""
        return self.final.inside and self.outside <= MOST_OUTSIDE * len(self.epochs)

    @property
    def erratum_1(self) -> float | None:
        """What scoring the training images adds (pp)."""
        return _less(self.train, self.test)

    @property
    def erratum_2(self) -> float | None:
        """What the second scaling of the inputs adds (pp; negative: it costs accuracy)."""
        return _less(self.test, self.standard)


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def agreeing(measured: Sequence[float]) -> tuple[float, float]:
    """Which published figures agree with those of the seeds (percent).

    With several seeds the 95 % prediction interval of one more seed: mean +- t s sqrt(1 + 1/n). The standard deviation
    s is at least the binomial one of the 60,000 images that are scored: seeds that happen to agree are not a narrow
    interval. With one seed, ``ONE_SEED_PP`` either side. No accuracy lies outside 0 and 100.
    """
    mean = fmean(measured)
    low, high = mean - ONE_SEED_PP, mean + ONE_SEED_PP
    if len(measured) > 1:
        low, high = stats.prediction_interval(measured, variance_floor=mean * (100 - mean) / TRAIN_IMAGES)
    return max(0.0, low), min(100.0, high)


def measured_model(
    entry: ModelEntry, tutorial: Sequence[Trial], standard: Sequence[Trial], published: Sequence[float]
) -> Model | None:
    """An entry's seeds that went well beside its published column, as far as both go; None where no seed did.

    Args:
        entry: of the matrix.
        tutorial, standard: trials with the recipe of that name.
        published: its column.
    """
    ok = _measured(tutorial, entry.name)
    lr = training_of(entry, "tutorial").lr
    columns = zip(published, zip(*(one.epochs.accuracy for one in ok), strict=True), strict=False)  # a short look
    epochs = [
        Epoch(name=entry.name, lr=lr, number=number, published=figure, measured=[100 * one for one in accuracies])
        for number, (figure, accuracies) in enumerate(columns)
    ]
    sets, mended = ([one.final for one in found if one.final] for found in (ok, _measured(standard, entry.name)))
    return (
        None
        if not epochs
        else Model(
            name=entry.name,
            model=entry.model,
            epochs=epochs,
            train=_percent_of(one.train for one in sets),
            test=_percent_of(one.test for one in sets),
            standard=_percent_of(one.test for one in mended),
        )
    )


def _measured(trials: Sequence[Trial], name: str) -> list[Measurement]:
    return [one.outcome for one in trials if one.cell.model == name and isinstance(one.outcome, Measurement)]


def _percent_of(accuracies: Iterable[float]) -> float | None:
    known = list(accuracies)
    return 100 * fmean(known) if known else None


# ── what is said of it ───────────────────────────────────────────────────────────────────────────────────────────────


def rate_answer(rates: Sequence[Model]) -> str:
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


def _evidence(rate: Model) -> str:
    final, count, (low, high) = rate.final, len(rate.epochs), rate.final.agreeing
    return (
        f"lr {rate.lr:g}: rms difference {rate.rms:.2f} pp; inside at {count - rate.outside} of {count} epochs; after "
        f"epoch {final.number} {final.mean:.2f} % measured, {final.published:.2f} % published, {rate.verdict} "
        f"(anything from {low:.1f} to {high:.1f} % would agree)."
    )


def errata_remarks(models: Sequence[Model]) -> Iterator[str]:
    """Each erratum in a sentence, with its figures; what was not measured is left out."""
    by_name = {model.name: model for model in models if model.test is not None}
    for words, attribute in (
        ("Erratum 1 (scored on the training images; the same weights on the test images)", "erratum_1"),
        ("Erratum 2 (inputs scaled twice; test images, one standard seed)", "erratum_2"),
    ):
        known = [(name, getattr(model, attribute)) for name, model in by_name.items()]
        if costs := [f"{name} {signed(cost)} pp" for name, cost in known if cost is not None]:
            yield f"{words}: {', '.join(costs)}."
    if mlp := by_name.get(MLP.name):
        yield (
            f"Erratum 3 (the text promises {PROMISED_MLP_PERCENT} % for mlp, its table ends lower): "
            f"{mlp.train:.2f} % measured as published, {mlp.test:.2f} % on the test images."
        )
    if (listing := by_name.get(CNN.name)) and (snippet := by_name.get(CNN_SNIPPET.name)):
        yield (
            f"Erratum 4 (lr 0.01 in the snippet, 0.001 in the listing): lr 0.01 changes the test accuracy of cnn by "
            f"{signed(_less(snippet.test, listing.test))} pp."
        )
    yield "Erratum 5 (said to be Keras, is PyTorch): costs nothing."


def signed(points: float | None) -> str:
    """A difference in percentage points, as ``+0.30``; what rounds to nothing is ``+0.00``, never ``-0.00``."""
    return "" if points is None else f"{round(points, 2) + 0.0:+.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """The two runs; ``missing`` says of each trial without figures why; ``rate`` is the answer to erratum 4."""

    tutorial: Run
    standard: Run
    models: Sequence[Model]
    rate: str
    remarks: Sequence[str]
    missing: Sequence[str]

    @property
    def work_s(self) -> float:
        """The seconds that its trials had the machine."""
        trials = (*self.tutorial.trials, *self.standard.trials)
        return sum(trial.outcome.token_s for trial in trials if isinstance(trial.outcome, Measurement))


def reproduction(published: Published, tutorial: Run, standard: Run) -> Reproduction:
    """Measured beside published, as far as the two runs have got.

    Raises:
        UsageError: the data set is not MNIST: of other images nothing was published.
    """
    manifest, runs = tutorial.manifest, (tutorial, standard)
    if any(run.manifest.dataset.name != "mnist" for run in runs):
        raise UsageError(f"run {manifest.run_id} was not made with MNIST: there is nothing published to compare with")
    found = [
        measured_model(entry, tutorial.trials, standard.trials, published[entry.model])
        for entry in manifest.matrix.models
    ]
    models = [each for each in found if each is not None]
    failed = [f"{one.recipe} {one.id}: {one.status}: {one.reason}" for run in runs for one in run.trials if one.reason]
    pending = [f"{run.manifest.matrix.recipe} {name}: not yet run" for run in runs for name in run.pending]
    rate = rate_answer([each for each in models if each.model == CNN.name])
    return Reproduction(
        tutorial=tutorial,
        standard=standard,
        models=models,
        rate=rate,
        remarks=[*([rate] if rate else []), *errata_remarks(models)],
        missing=[*failed, *pending],
    )


def document(result: Reproduction) -> Document:
    """The result for people: epoch by epoch, after the last epoch, what the errata cost."""
    manifest, matrix = result.tutorial.manifest, result.tutorial.manifest.matrix
    setting = (
        f"Runs {manifest.run_id} (tutorial recipe) and {result.standard.manifest.run_id} (standard recipe)",
        f"MNIST ({manifest.dataset.sha256[:12]})",
        f"{_count(matrix.epochs, 'epoch')}, batch {matrix.batch_sizes[0]}",
        f"seed{'s' * (len(matrix.seeds) != 1)} {', '.join(map(str, matrix.seeds))}",
        f"pipeline {matrix.variants[0].pipeline}",
        *machine(manifest.environment),
        f"{result.work_s / 60:.1f} min of work",
    )
    epochs = [
        Table(f"{model.title}, {_count(len(model.final.measured), 'seed')}", _EPOCHS, model.epochs)
        for model in result.models
    ]
    return Document(
        title="The tutorial, reproduced",
        facts=(" · ".join(setting), *(["Not complete: figures are missing."] if result.missing else [])),
        tables=(*epochs, _verdicts(result), _errata(result)),
        notes=(*result.remarks, *MEANINGS, *(f"missing: {line}" for line in result.missing)),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def page(result: Reproduction) -> str:
    """``reproduction.md``: the document, and the plot that lies beside it."""
    return f"{document(result).markdown()}\n![Accuracy by epoch, published and measured]({PLOT})\n"


def epochs_table(result: Reproduction) -> Table[Epoch]:
    """A line per entry and epoch, for CSV and JSON."""
    columns = (*_named(lambda epoch: epoch), *_EPOCHS)
    return Table("", columns, [each for model in result.models for each in model.epochs])


def to_json(result: Reproduction) -> dict[str, Any]:
    """The whole result as JSON values."""
    manifest, beside = result.tutorial.manifest, result.standard.manifest
    return {
        "runs": {"tutorial": manifest.run_id, "standard": beside.run_id},
        "status": {"tutorial": manifest.status, "standard": beside.status},
        "dataset_sha256": manifest.dataset.sha256,
        "pipeline": manifest.matrix.variants[0].pipeline,
        "seeds": list(manifest.matrix.seeds),
        "work_s": round(result.work_s, 1),
        "verdicts": _verdicts(result).records(),
        "cnn_rate": result.rate,
        "epochs": epochs_table(result).records(),
        "errata": _errata(result).records(),
        "remarks": list(result.remarks),
        "missing": list(result.missing),
    }


def _verdicts(result: Reproduction) -> Table[Model]:
    return Table("After the last epoch (accuracy in percent)", _VERDICTS, result.models)


def _errata(result: Reproduction) -> Table[Model]:
    rows = [model for model in result.models if model.test is not None]
    return Table("What the errata cost (accuracy in percent after the last epoch)", _ERRATA, rows)


def _figure(
    title: str | None, key: str, of: Callable[[T], float | None], text: Callable[[float | None], str] | None = None
) -> Column[T]:
    """A figure in percent or percentage points; in files to what 60,000 images can tell apart, and a digit."""
    said = text or (lambda value: "" if value is None else f"{value:.2f}")

    def rounded(row: T) -> float | None:
        value = of(row)
        return None if value is None else round(value, 4) + 0.0  # no -0.0

    return Column(title, lambda row: said(of(row)), key=key, value=rounded)


def _named(of: Callable[[T], Epoch]) -> tuple[Column[T], ...]:
    return (
        Column("model", right=False, key="model", value=lambda row: of(row).name),
        Column(None, key="lr", value=lambda row: of(row).lr),
        Column(None, key="seeds", value=lambda row: len(of(row).measured)),
    )


def _compared(of: Callable[[T], Epoch]) -> tuple[Column[T], ...]:
    def spread(row: T) -> str:
        measured = of(row).measured
        return f"{min(measured):.2f}-{max(measured):.2f}" if len(measured) > 1 else ""

    return (
        _figure("published", "published", lambda row: of(row).published),
        _figure("measured", "measured", lambda row: of(row).mean),
        Column("range", spread, rank=1),
        _figure(None, "measured_min", lambda row: min(of(row).measured)),
        _figure(None, "measured_max", lambda row: max(of(row).measured)),
        _figure("diff", "difference_pp", lambda row: of(row).difference, signed),
    )


_EPOCHS: tuple[Column[Epoch], ...] = (
    Column("epoch", key="epoch", value=lambda epoch: epoch.number),
    *_compared(lambda epoch: epoch),
    Column("would agree", lambda epoch: "{:.2f} to {:.2f}".format(*epoch.agreeing), rank=2),
    _figure(None, "agrees_from", lambda epoch: epoch.agreeing[0]),
    _figure(None, "agrees_to", lambda epoch: epoch.agreeing[1]),
    Column("agrees", right=False, key="inside", value=lambda epoch: epoch.inside),
)
_VERDICTS: tuple[Column[Model], ...] = (
    *_named(lambda model: model.final),
    *_compared(lambda model: model.final),
    Column("verdict", right=False, key="verdict", value=lambda model: model.verdict),
    Column(None, key="within", value=lambda model: model.final.inside),
    _figure(None, "rms_difference_pp", lambda model: model.rms),
    Column(None, key="epochs_outside", value=lambda model: model.outside),
)
_ERRATA: tuple[Column[Model], ...] = (
    Column("model", right=False, key="model", value=lambda model: model.name),
    _figure("published", "published", lambda model: model.final.published),
    _figure("train", "train", lambda model: model.train),
    _figure("test", "test", lambda model: model.test),
    _figure("standard", "standard", lambda model: model.standard),
    _figure("erratum 1", "erratum_1", lambda model: model.erratum_1, signed),
    _figure("erratum 2", "erratum_2", lambda model: model.erratum_2, signed),
)


def chart(models: Sequence[Model]) -> alt.ConcatChart:
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


def _panel(model: Model) -> alt.LayerChart | alt.FacetChart:
    import altair as alt

    values = [
        {"epoch": each.number, "series": series, "accuracy": fmean(seeds), "low": min(seeds), "high": max(seeds)}
        for series in (PUBLISHED, MEASURED)
        for each in model.epochs
        for seeds in [each.measured if series == MEASURED else [each.published]]
    ]
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=[each.number for each in model.epochs], format="d"))
    y = alt.Y("accuracy:Q", title="accuracy, %", scale=alt.Scale(zero=False))
    series = alt.Color("series:N", scale=alt.Scale(domain=[PUBLISHED, MEASURED], range=list(COLORS)))
    base = alt.Chart(alt.InlineData(values=values)).encode(x=x, color=series)
    measured, published = (base.transform_filter(alt.datum.series == name) for name in (MEASURED, PUBLISHED))
    layers = (
        base.mark_area(opacity=0.25).encode(y="low:Q", y2="high:Q"),
        measured.mark_line(point=True).encode(y=y),
        # Above the measured line, and with gaps: where the two agree, both are seen.
        published.mark_line(strokeDash=[4, 4], point=True).encode(y=y),
    )
    return alt.layer(*layers).properties(width=320, height=220, title=model.title)
