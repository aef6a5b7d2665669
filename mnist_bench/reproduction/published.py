"""The tutorial's own figures, shipped as ``published.csv``: accuracy in percent after each of epochs 0 to 9."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from importlib import resources

Published = Mapping[str, tuple[float, ...]]  # by model, one figure per epoch

# Erratum 3: the text promises this for the MLP; its table does not hold it.
PROMISED_MLP_PERCENT = 99.81
EPOCHS = 10


def read() -> Published:
    """The figures that this package ships: the one function of this package that reads a file."""
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
