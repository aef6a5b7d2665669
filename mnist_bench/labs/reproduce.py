"""The tutorial's experiments: what is run, and what was measured beside what was published.

The published figures (``published.csv``) are accuracies in percent after each of epochs 0 to 9, of the training images
(erratum 1).
"""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from mnist_bench import config
from mnist_bench.analysis.results import machine
from mnist_bench.analysis.summary import Ok, Run
from mnist_bench.catalogue import training_of
from mnist_bench.cells import model_of
from mnist_bench.errors import UsageError
from mnist_bench.figures import points
from mnist_bench.records import BUILTIN_VARIANTS, Cell, Matrix
from mnist_bench.table import Column, Document, Table, at

ONE_SEED_PP = 1.0  # of one seed, which shows no spread: this near is near
ENOUGH_SEEDS = 10  # for a word on a whole column, which is then wrong of one more seed in 11
MEANINGS = (
    "measured: the mean over seeds; diff: measured less published (pp); rms: its root mean square over epochs; "
    "outside: epochs whose published figure does not lie among the seeds. All are of training images, as published.",
    "farther: of how many seeds the whole column lies at least as far from the mean of all others as the published "
    f"one. None: by chance once in n + 1. From {ENOUGH_SEEDS} seeds on a rate fits unless it is the farthest.",
    "Erratum 1: the same weights on the training images (train) less on the test images (test). Erratum 2 (inputs "
    "scaled twice): test less the standard recipe on the test images (standard, one seed). Erratum 3: the text says "
    "99.81 % for mlp, its table ends lower. Erratum 4: lr 0.01 or 0.001 for cnn. Erratum 5: it is not Keras.",
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
    def lowest(self) -> float:
        return min(self.measured)

    @property
    def highest(self) -> float:
        return max(self.measured)

    @property
    def difference(self) -> float:
        """Measured less published (pp)."""
        return self.mean - self.published

    @property
    def below(self) -> int:
        """How many seeds came out below the published figure."""
        return sum(one < self.published for one in self.measured)

    @property
    def inside(self) -> bool:
        """Whether the published figure lies among the seeds; near the only one."""
        if len(self.measured) == 1:
            return abs(self.difference) <= ONE_SEED_PP
        return self.lowest <= self.published <= self.highest

    @property
    def verdict(self) -> str:
        """The place of the published figure among the seeds, and how often one more seed would come to lie so far out.

        Of n + 1 seeds of one kind each is as likely as any other to be the lowest: no normal distribution is asked for,
        which trainings that start on a plateau do not have.
        """
        seeds = len(self.measured)
        if seeds == 1:
            return "within 1 pp (one seed)" if self.inside else "over 1 pp off (one seed)"
        if self.inside:
            return f"among the {seeds} seeds"
        return f"{'above' if self.below else 'below'} all {seeds} seeds (by chance: 1 in {seeds + 1})"


@dataclass(frozen=True, kw_only=True)
class Model:
    """An entry of the matrix beside the published column of ``model``.

    Args:
        epochs: is not empty.
        test: after the last epoch, the same weights on the test images (percent, the mean over seeds); None: not
            measured. ``standard``: likewise with the right normalisation, of one seed.
    """

    model: str
    epochs: Sequence[Epoch]
    test: float | None
    standard: float | None

    @property
    def final(self) -> Epoch:
        return self.epochs[-1]

    @property
    def erratum_1(self) -> float | None:
        """What the tutorial publishes as test accuracy, less the test accuracy (pp)."""
        return None if self.test is None else self.final.mean - self.test

    @property
    def erratum_2(self) -> float | None:
        """What the second scaling of the inputs adds (pp; negative: it costs accuracy)."""
        return None if self.test is None or self.standard is None else self.test - self.standard

    @property
    def outside(self) -> int:
        """How many epochs' published figures do not lie among the seeds."""
        return sum(not each.inside for each in self.epochs)

    @property
    def rms(self) -> float:
        """The root mean square, over epochs, of measured less published (pp)."""
        return math.sqrt(fmean(each.difference**2 for each in self.epochs))

    @cached_property
    def farther(self) -> int:
        """How many seeds' columns lie at least as far from the mean of all others as the published column does.

        If the published column is one more seed, it is as likely as any other to be the farthest, whatever their
        distribution (Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*, section 2.2).
        """
        columns = np.array([[each.published, *each.measured] for each in self.epochs])
        others = (columns.sum(axis=1, keepdims=True) - columns) / (columns.shape[1] - 1)
        published, *seeds = np.square(columns - others).sum(axis=0).tolist()
        return sum(one >= published for one in seeds)

    @property
    def fits(self) -> bool | None:
        """Whether the whole column may be one more seed: it is not the farthest of all. None: too few seeds to say."""
        return self.farther > 0 if len(self.final.measured) >= ENOUGH_SEEDS else None


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
        return [model for cell, own in self.tutorial.ok.items() if (model := self._model(cell, own)).epochs]

    def _model(self, cell: Cell, own: Ok) -> Model:
        matrix = self.tutorial.manifest.matrix
        entry = model_of(matrix, cell.model)
        lr = training_of(entry, matrix.recipe).lr
        seeds = zip(*(one.epochs.accuracy for _, one in own.values()), strict=True)
        columns = zip(read()[entry.model], seeds, strict=False)  # a short look
        return Model(
            model=entry.model,
            epochs=[
                Epoch(name=entry.name, lr=lr, number=number, published=figure, measured=[100 * one for one in each])
                for number, (figure, each) in enumerate(columns)
            ],
            test=_test_accuracy(own),
            standard=_test_accuracy(self.standard.ok.get(cell, {})),
        )

    @property
    def rate(self) -> str:
        """The answer to erratum 4; empty while not both rates were measured."""
        rates = [model for model in self.models if model.model == "cnn"]
        if len(rates) < 2:
            return ""
        closest = f"lr {min(rates, key=lambda each: each.rms).final.lr:g} is the closer"
        if any(each.fits is None for each in rates):
            return f"Erratum 4: {closest}; which rate the published cnn column fits takes {ENOUGH_SEEDS} seeds to say."
        fits = " and ".join(f"lr {each.final.lr:g}" for each in rates if each.fits) or "neither rate"
        return f"Erratum 4: the published cnn column fits {fits}; {closest}."

    @property
    def missing(self) -> list[str]:
        """Of each trial without figures, why."""
        runs = (self.tutorial, self.standard)
        failed = [
            f"{one.recipe} {one.id}: {one.status}: {one.reason}" for run in runs for one in run.trials if one.reason
        ]
        return failed + [f"{run.manifest.matrix.recipe} {name}: not yet run" for run in runs for name in run.pending]


def _test_accuracy(own: Ok) -> float | None:
    """After the last epoch (percent, the mean over seeds)."""
    known = [one.final.test for _, one in own.values() if one.final]
    return 100 * fmean(known) if known else None


# ── what is said of it ───────────────────────────────────────────────────────────────────────────────────────────────


def _signed(percentage_points: float) -> str:
    return points(percentage_points / 100)


def _figure(title: str, key: str, path: str, show: Callable[[float], str] = "{:.2f}".format) -> Column[Any]:
    """A figure in percent or percentage points; in files to what 60,000 images can tell apart, and a digit."""

    def value(row: Any) -> float | None:
        return None if (found := at(path)(row)) is None else round(found, 4) + 0.0  # no -0.0

    return Column(title, lambda row: "" if (found := value(row)) is None else show(found), key=key, value=value)


EPOCH_COLUMNS: tuple[Column[Epoch], ...] = (
    Column("model", right=False, key="model", value=at("name")),
    Column(None, key="lr", value=at("lr")),
    Column(None, key="seeds", value=lambda row: len(row.measured)),
    Column("epoch", key="epoch", value=at("number")),
    _figure("published", "published", "published"),
    _figure("measured", "measured", "mean"),
    _figure("diff", "difference_pp", "difference", _signed),
    _figure("lowest", "lowest", "lowest"),
    _figure("highest", "highest", "highest"),
    Column("seeds below", key="seeds_below", value=at("below")),
    Column("inside", right=False, key="inside", value=at("inside")),
)
VERDICT_COLUMNS: tuple[Column[Model], ...] = (
    Column("model", right=False, key="model", value=at("final.name")),
    Column("lr", key="lr", rank=1, value=at("final.lr")),
    Column("seeds", key="seeds", rank=2, value=lambda row: len(row.final.measured)),
    _figure("published", "published", "final.published"),
    _figure("measured", "measured", "final.mean"),
    _figure("diff", "difference_pp", "final.difference", _signed),
    _figure("rms", "rms_difference_pp", "rms"),
    Column("outside", key="epochs_outside", value=at("outside")),
    Column("farther", key="seeds_farther", value=at("farther")),
    Column("verdict", right=False, key="verdict", value=at("final.verdict")),
    Column(None, key="within", value=at("final.inside")),
)
ERRATA_COLUMNS: tuple[Column[Model], ...] = (
    Column("model", right=False, key="model", value=at("final.name")),
    _figure("train", "train", "final.mean"),
    _figure("test", "test", "test"),
    _figure("standard", "standard", "standard"),
    _figure("erratum 1", "erratum_1", "erratum_1", _signed),
    _figure("erratum 2", "erratum_2", "erratum_2", _signed),
)


def tables(result: Reproduction) -> dict[str, Table[Any]]:
    """A line per entry and epoch, per entry, and per entry whose errata were measured."""
    models = result.models
    scored = [one for one in models if one.test is not None]
    epochs = [each for one in models for each in one.epochs]
    return {
        "epochs": Table("Epoch by epoch (accuracy in percent)", EPOCH_COLUMNS, epochs),
        "verdicts": Table("After the last epoch (accuracy in percent)", VERDICT_COLUMNS, models),
        "errata": Table("What the errata cost (accuracy in percent after the last epoch)", ERRATA_COLUMNS, scored),
    }


def document(result: Reproduction) -> Document:
    """The result for people: epoch by epoch, after the last epoch, what the errata cost."""
    manifest, matrix = result.tutorial.manifest, result.tutorial.manifest.matrix
    setting = (
        f"Runs {manifest.run_id} (tutorial recipe) and {result.standard.manifest.run_id} (standard recipe)",
        f"MNIST ({manifest.dataset.sha256[:12]})",
        f"seed{'s' * (len(matrix.seeds) != 1)} {', '.join(map(str, matrix.seeds))}",
        f"pipeline {matrix.variants[0].pipeline}",
        *machine(manifest.environment),
    )
    return Document(
        title="The tutorial, reproduced",
        facts=(" · ".join(setting), *(["Not complete: figures are missing."] if result.missing else [])),
        tables=[*tables(result).values()],
        notes=(*filter(None, [result.rate]), *MEANINGS, *(f"missing: {line}" for line in result.missing)),
    )


def to_json(result: Reproduction) -> dict[str, Any]:
    """The result as JSON values; the rest is in the manifests of its runs."""
    runs = {"tutorial": result.tutorial.manifest, "standard": result.standard.manifest}
    return {
        "runs": {name: one.run_id for name, one in runs.items()},
        "status": {name: one.status for name, one in runs.items()},
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
                yield {"series": name, "epoch": one.number, "accuracy": mean, "low": low, "high": high}

    panel = learning.accuracy_by_epoch((PUBLISHED, MEASURED), learning.ACCURACY.title("accuracy"))
    panels = [
        {
            **panel,
            "title": f"{one.final.name}, lr {one.final.lr:g}",
            "width": 320,
            "data": {"values": list(values(one))},
        }
        for one in models
    ]
    return {"concat": panels, "columns": 2, "config": vega.paper()}
