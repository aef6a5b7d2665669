"""``mnist-bench list models|devices|variants|datasets|runs``: what a matrix can name, without torch; what was run."""

import argparse
import dataclasses
from typing import Any

from mnist_bench.catalogue import DATASETS, SETS, device_names
from mnist_bench.cli import options
from mnist_bench.cli.console import print_result, say
from mnist_bench.machine import forecast
from mnist_bench.records import BUILTIN_VARIANTS, CompileOptions, Variant
from mnist_bench.table import Table

Rows = list[dict[str, object]]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=tuple(KINDS), help="what to list")
    options.add(parser, "output_dir", "format", "color")


def execute(args: argparse.Namespace) -> int:
    if (rows := KINDS[args.kind](args)) or args.format != "table":
        print_result(args, Table.of("", rows))
    return 0


def _models(_: argparse.Namespace) -> Rows:
    from mnist_bench.catalogue import MODELS, PLUG_IN
    from mnist_bench.config import plugin_names

    found = [(name, model, "built-in") for name, model in MODELS.items()]
    found += [(name, PLUG_IN, "plug-in (needs --allow-plugins)") for name in plugin_names()]
    facts = ("parameters", "optimizer", "lr")
    return [
        {"model": name, **{fact: getattr(model, fact) for fact in facts}, "origin": origin, "title": model.meaning}
        for name, model, origin in found
    ]


def _devices(_: argparse.Namespace) -> Rows:
    host, ask = forecast.this_host(), "mnist-bench doctor tells what torch sees"
    here = {name: forecast.device_doubt(name.replace(":N", ""), host) or ask for name in device_names()}
    here["cpu"] = "always there"
    return [{"device": name, "meaning": meaning, "here": here[name]} for name, meaning in device_names().items()]


def _variants(_: argparse.Namespace) -> Rows:
    rows: Rows = []
    for name, variant in BUILTIN_VARIANTS.items():
        own = _changed(variant, Variant(name=name), "") + _changed(variant.compile, CompileOptions(), "compile.")
        rows.append({"variant": name, "settings": ", ".join(own) or "the defaults"})
    return rows


def _datasets(_: argparse.Namespace) -> Rows:
    return [{"dataset": name, "folder": SETS[name].folder, "title": SETS[name].title} for name in DATASETS[1:]]


def _changed(record: Any, plain: Any, prefix: str) -> list[str]:
    """``key: value`` of each setting that differs from the default, as it would be written in a matrix."""
    names = [field.name for field in dataclasses.fields(record) if field.name != "compile"]
    values = [(name, getattr(record, name)) for name in names if getattr(record, name) != getattr(plain, name)]
    return [f"{prefix}{name}: {str(value).lower() if isinstance(value, bool) else value}" for name, value in values]


def _runs(args: argparse.Namespace) -> Rows:
    """Newest first."""
    from mnist_bench.analysis import history

    runs, warnings = history.read(args.output_dir, "train_samples_per_s", say)
    say(*(f"warning: {warning}" for warning in warnings))
    if not runs:
        say(f"no run in {args.output_dir} yet: `mnist-bench run` makes one, or name another --output-dir")
    return [
        {
            "run": run.run_id,
            "status": run.status,
            "trials": f"{run.finished}/{run.planned}",
            "cells": len(run.rows),
            "dataset": run.dataset.name,
            "recipe": run.recipe,
            "epochs": run.epochs,
            "commit": run.version,
            "cpu": f"{run.environment.cpu}, {run.environment.cores} cores",
        }
        for run in reversed(runs)
    ]


KINDS = {"models": _models, "devices": _devices, "variants": _variants, "datasets": _datasets, "runs": _runs}
