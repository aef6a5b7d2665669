"""The tutorial's experiments: what is run, and what was measured beside what was published.

The published figures (``published.csv``) are accuracies in percent after each of epochs 0 to 9, of the training images
(erratum 1).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from mnist_bench import config, stats
from mnist_bench.analysis.results import machine
from mnist_bench.analysis.summary import Run
from mnist_bench.catalogue import training_of
from mnist_bench.cells import model_of
from mnist_bench.errors import UsageError
from mnist_bench.records import BUILTIN_VARIANTS, TRAIN_IMAGES, Cell, Matrix, Measurement
from mnist_bench.table import Column, Document, Table, at

ONE_SEED_PP = 1.0  # of one seed, which shows no spread: this near is near
MOST_OUTSIDE = 0.1  # of the epochs, for a column to fit: a 95 % interval is left now and then
ERRATA = {"erratum_1": ("train", "test"), "erratum_2": ("test", "standard")}  # each the first less the second
MEANINGS = (
    "measured: the mean over seeds; range: their lowest and highest; diff: measured less published (pp); rms: the root "
    "mean square of that over epochs; outside: epochs whose published figure would not agree. Epochs count from 0, as "
    "in the tutorial. All accuracies are those of the training images, as published (erratum 1).",
    "within the seeds' spread: the published figure lies in the 95 % prediction interval of one more seed, mean ± t s "
    "√(1 + 1/n), s at least the binomial deviation of 60,000 images: would agree. With one seed there is no spread: "
    "within 1 pp or not. A rate fits the column if the last epoch agrees and at most one epoch in ten does not.",
    "Erratum 1: train and test are the same weights, trained by the tutorial's recipe, scored on the training images "
    "(as the tutorial does) and on the test images. Erratum 2 (inputs scaled twice): standard is the standard recipe "
    "on the test images, one seed; the cost is test less standard. Erratum 3: the text promises 99.81 % for mlp, its "
    "table ends lower. Erratum 4: lr 0.01 in the snippet, 0.001 in the listing. Erratum 5: it is not Keras.",
)
PUBLISHED, MEASURED = "published", "measured (mean, range over seeds)"  # in the plot


def tutorial_matrix(pipeline: Literal["resident", "tutorial"]) -> Matrix:
    """The tutorial's experiments as published; ``tutorial`` loops as the tutorial does, and is slower."""
    matrix = config.load(Path(__file__).with_name("tutorial.yaml"), allow_plugins=False)
    return matrix if pipeline == "resident" else replace(matrix, variants=(BUILTIN_VARIANTS[pipeline],))


def standard_matrix(tutorial: Matrix) -> Matrix:
    """The same for the models that erratum 2 concerns, with the errata mended: the first seed alone."""
    models = tuple(entry for entry in tutorial.models if entry.name in ("cnn", "lenet5"))
    return replace(tutorial, name="reproduce-standard", recipe="standard", seeds=tutorial.seeds[:1], models=models)


def read() -> Mapping[str, Sequence[float]]:
    """The columns of the tutorial's tables, which this package ships: by model, one figure per epoch."""
    columns: dict[str, list[float]] = {}
    with Path(__file__).with_name("published.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            columns.setdefault(line["model"], []).append(float(line["accuracy_percent"]))
    return columns


# ── what was measured ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of the entry ``name``: published, and measured by each seed (percent)."""

    name: str
    lr: float
    number: int
    published: float
    measured: Sequence[float]

    @cached_property
    def mean(self) -> float:
        return fmean(self.measured)

    @property
    def difference(self) -> float:
        """Measured less published (pp)."""
        return self.mean - self.published

    @property
    def spread(self) -> str:
        """The lowest and the highest of the seeds; empty for one."""
        return f"{min(self.measured):.2f}-{max(self.measured):.2f}" if len(self.measured) > 1 else ""

    @cached_property
    def agreeing(self) -> tuple[float, float]:
        """Which published figures would agree (percent).

        With several seeds the 95 % prediction interval of one more seed: mean +- t s sqrt(1 + 1/n). The standard
        deviation s is at least the binomial one of the 60,000 images that are scored: seeds that happen to agree are
        not a narrow interval. With one seed, ``ONE_SEED_PP`` either side. No accuracy lies outside 0 and 100.
        """
        low, high = self.mean - ONE_SEED_PP, self.mean + ONE_SEED_PP
        if len(self.measured) > 1:
            floor = self.mean * (100 - self.mean) / TRAIN_IMAGES
            low, high = stats.prediction_interval(self.measured, variance_floor=floor)
        return max(0.0, low), min(100.0, high)

    @property
    def inside(self) -> bool:
        low, high = self.agreeing
        return low <= self.published <= high

    @property
    def verdict(self) -> str:
        if len(self.measured) > 1:
            return f"{'within' if self.inside else 'outside'} the seeds' spread"
        return "within 1 pp (one seed)" if self.inside else "over 1 pp off (one seed)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An entry of the matrix beside the published column of ``model``.

    Args:
        epochs: is not empty.
        scores: after the last epoch (percent, means over seeds); what was not measured is not there. ``train`` and
            ``test``: of the same weights on both image sets; the first is what the tutorial publishes as test accuracy,
            their difference is ``erratum_1`` (pp). ``standard``: on the test images with the right normalisation, of
            one seed; ``erratum_2`` is what the second scaling of the inputs adds (negative: it costs accuracy).
    """

    name: str
    model: str
    epochs: Sequence[Epoch]
    scores: Mapping[str, float]

    @property
    def final(self) -> Epoch:
        return self.epochs[-1]

    @property
    def title(self) -> str:
        return f"{self.name}, lr {self.final.lr:g}"

    @property
    def outside(self) -> int:
        """How many epochs' published figures lie outside."""
        return sum(not each.inside for each in self.epochs)

    @property
    def rms(self) -> float:
        """The root mean square, over epochs, of measured less published (pp)."""
        return math.sqrt(fmean(each.difference**2 for each in self.epochs))

    @property
    def fits(self) -> bool:
        """Whether the whole column agrees: the last epoch does, and of all at most one in ten does not."""
        return self.final.inside and self.outside <= MOST_OUTSIDE * len(self.epochs)


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Measured beside published, as far as the two runs have got.

    Raises:
        UsageError: the data set is not MNIST: of other images nothing was published.
    """

    tutorial: Run
    standard: Run

    def __post_init__(self) -> None:
        if any(run.manifest.dataset.name != "mnist" for run in (self.tutorial, self.standard)):
            name = self.tutorial.manifest.run_id
            raise UsageError(f"run {name} was not made with MNIST: there is nothing published to compare with")

    @cached_property
    def models(self) -> Sequence[Model]:
        """The entries with a seed that went well, as far as both columns go."""
        matrix, published, models = self.tutorial.manifest.matrix, read(), []
        for cell, own in self.tutorial.ok.items():
            entry = model_of(matrix, cell.model)
            lr = training_of(entry, matrix.recipe).lr
            seeds = zip(*(one.epochs.accuracy for _, one in own.values()), strict=True)
            columns = zip(published[entry.model], seeds, strict=False)  # a short look
            epochs = [
                Epoch(name=entry.name, lr=lr, number=number, published=figure, measured=[100 * one for one in each])
                for number, (figure, each) in enumerate(columns)
            ]
            if epochs:
                scores = self._scores(cell)
                models.append(Model(name=entry.name, model=entry.model, epochs=epochs, scores=scores))
        return models

    def _scores(self, cell: Cell) -> Mapping[str, float]:
        own, mended = (
            [one.final for _, one in run.ok.get(cell, {}).values() if one.final]
            for run in (self.tutorial, self.standard)
        )
        sets = {"train": [one.train for one in own], "test": [one.test for one in own]}
        sets["standard"] = [one.test for one in mended]
        found = {name: 100 * fmean(known) for name, known in sets.items() if known}
        costs = {name: found[a] - found[b] for name, (a, b) in ERRATA.items() if a in found and b in found}
        return found | costs

    @property
    def rate(self) -> str:
        """The answer to erratum 4; empty while not both rates were measured."""
        rates = [model for model in self.models if model.model == "cnn"]
        if len(rates) < 2:
            return ""
        fits = " and ".join(f"lr {each.final.lr:g}" for each in rates if each.fits) or "neither rate"
        closest = min(rates, key=lambda each: each.rms).final.lr
        return f"Erratum 4: the published cnn column fits {fits}; lr {closest:g} is the closer."

    @property
    def missing(self) -> list[str]:
        """Of each trial without figures, why."""
        runs = (self.tutorial, self.standard)
        failed = [
            f"{one.recipe} {one.id}: {one.status}: {one.reason}" for run in runs for one in run.trials if one.reason
        ]
        return failed + [f"{run.manifest.matrix.recipe} {name}: not yet run" for run in runs for name in run.pending]

    @property
    def work_s(self) -> float:
        """The seconds that its trials had the machine."""
        trials = (*self.tutorial.trials, *self.standard.trials)
        return sum(trial.outcome.token_s for trial in trials if isinstance(trial.outcome, Measurement))


# ── what is said of it ───────────────────────────────────────────────────────────────────────────────────────────────


def signed(points: float) -> str:
    """A difference in percentage points, as ``+0.30``; what rounds to nothing is ``+0.00``, never ``-0.00``."""
    return f"{round(points, 2) + 0.0:+.2f}"


def _figure(
    title: str | None, key: str, value: Callable[[Any], Any], show: Callable[[float], str] = "{:.2f}".format
) -> Column[Any]:
    """A figure in percent or percentage points; in files to what 60,000 images can tell apart, and a digit."""

    def text(row: Any) -> str:
        return "" if (found := value(row)) is None else show(found)

    def rounded(row: Any) -> float | None:
        return None if (found := value(row)) is None else round(found, 4) + 0.0  # no -0.0

    return Column(title, text, key=key, value=rounded)


def _columns(title: str | None, of: Callable[[Any], Epoch], *also: Column[Any]) -> tuple[Column[Any], ...]:
    """An epoch of a row, published beside measured; with ``title`` people read the entry's name too."""
    return (
        Column(title, right=False, key="model", value=lambda row: of(row).name),
        Column(None, key="lr", value=lambda row: of(row).lr),
        Column(None, key="seeds", value=lambda row: len(of(row).measured)),
        *also,
        _figure("published", "published", lambda row: of(row).published),
        _figure("measured", "measured", lambda row: of(row).mean),
        Column("range", lambda row: of(row).spread, rank=1),
        _figure(None, "measured_min", lambda row: min(of(row).measured)),
        _figure(None, "measured_max", lambda row: max(of(row).measured)),
        _figure("diff", "difference_pp", lambda row: of(row).difference, signed),
        Column("would agree", lambda row: "{:.2f} to {:.2f}".format(*of(row).agreeing), rank=2),
        _figure(None, "agrees_from", lambda row: of(row).agreeing[0]),
        _figure(None, "agrees_to", lambda row: of(row).agreeing[1]),
    )


EPOCH_COLUMNS: tuple[Column[Epoch], ...] = (
    *_columns(None, lambda epoch: epoch, Column("epoch", key="epoch", value=at("number"))),
    Column("agrees", right=False, key="inside", value=at("inside")),
)
VERDICT_COLUMNS: tuple[Column[Model], ...] = (
    *_columns("model", at("final")),
    _figure("rms", "rms_difference_pp", at("rms")),
    Column("outside", key="epochs_outside", value=at("outside")),
    Column("verdict", right=False, key="verdict", value=at("final.verdict")),
    Column(None, key="within", value=at("final.inside")),
)


def _score(key: str) -> Callable[[Model], float | None]:
    return lambda model: model.scores.get(key)


ERRATA_COLUMNS: tuple[Column[Model], ...] = (
    Column("model", right=False, key="model", value=at("name")),
    _figure("published", "published", at("final.published")),
    *(_figure(key, key, _score(key)) for key in ("train", "test", "standard")),
    *(_figure(key.replace("_", " "), key, _score(key), signed) for key in ERRATA),
)


def tables(result: Reproduction) -> dict[str, Table[Any]]:
    """As programs get them: a line per entry, per entry and epoch, and per entry whose errata were measured."""
    scored = [model for model in result.models if model.scores]
    return {
        "verdicts": Table("After the last epoch (accuracy in percent)", VERDICT_COLUMNS, result.models),
        "epochs": Table("", EPOCH_COLUMNS, [each for model in result.models for each in model.epochs]),
        "errata": Table("What the errata cost (accuracy in percent after the last epoch)", ERRATA_COLUMNS, scored),
    }


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
    verdicts, _, errata = tables(result).values()
    epochs = [
        Table(f"{model.title}, {_count(len(model.final.measured), 'seed')}", EPOCH_COLUMNS, model.epochs)
        for model in result.models
    ]
    return Document(
        title="The tutorial, reproduced",
        facts=(" · ".join(setting), *(["Not complete: figures are missing."] if result.missing else [])),
        tables=(*epochs, verdicts, errata),
        notes=(*filter(None, [result.rate]), *MEANINGS, *(f"missing: {line}" for line in result.missing)),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


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
        "cnn_rate": result.rate,
        **{name: table.records() for name, table in tables(result).items()},
        "missing": result.missing,
    }


def page(result: Reproduction) -> str:
    """``reproduction.md``: the document, and the plot that lies beside it."""
    return f"{document(result).markdown()}\n![Accuracy by epoch, published and measured](reproduction.svg)\n"


def plot(models: Sequence[Model]) -> dict[str, Any]:
    """Accuracy by epoch, published and measured (Vega-Lite): a panel per entry, each with a scale of its own."""
    from mnist_bench.report import learning, vega

    def values(model: Model) -> Iterator[dict[str, Any]]:
        for one in model.epochs:
            # The last lies above: where the two agree, the band of the seeds is seen beside the published line.
            for name, percent in ((MEASURED, one.measured), (PUBLISHED, [one.published])):
                mean, low, high = (take(percent) / 100 for take in (fmean, min, max))
                yield {"variant": name, "epoch": one.number, "accuracy": mean, "low": low, "high": high}

    panel = learning.accuracy_by_epoch((PUBLISHED, MEASURED), learning.ACCURACY.title("accuracy"))
    panels = [{**panel, "title": one.title, "width": 320, "data": {"values": list(values(one))}} for one in models]
    return {"concat": panels, "columns": 2, "config": vega.paper()}
