"""``mnist-bench list models|devices|variants``: what a matrix can name, found without torch."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from mnist_bench.cli import options

KINDS = ("models", "devices", "variants")
# Counted from the architectures (reference/tutorial.md); a test of the models holds them against torch.
PARAMETERS = {"mlp": 623_290, "cnn": 934_798, "lenet5": 61_706}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=KINDS, help="what to list")
    options.add_format(parser)
    options.add_color(parser)


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.cli.console import print_rows

    rows = {"models": _models, "devices": _devices, "variants": _variants}[args.kind]()
    print_rows(rows, args)
    return 0


def _models() -> list[dict[str, object]]:
    from mnist_bench.config_rules import plugin_names
    from mnist_bench.recipes import DEFAULT_OPTIMIZER, OPTIMIZERS
    from mnist_bench.records import BUILTIN_MODELS

    rows: list[dict[str, object]] = []
    for name in (*BUILTIN_MODELS, *plugin_names()):
        optimizer, rate = OPTIMIZERS.get(name, DEFAULT_OPTIMIZER)
        origin = "built-in" if name in BUILTIN_MODELS else "plug-in (needs --allow-plugins)"
        rows.append(
            {"model": name, "parameters": PARAMETERS.get(name), "optimizer": optimizer, "lr": rate, "origin": origin}
        )
    return rows


def _devices() -> list[dict[str, object]]:
    from mnist_bench.machine.forecast import device_doubt, this_host

    meanings = {
        "cpu": "the processor",
        "cuda": "the first visible NVIDIA GPU, the same as cuda:0",
        "cuda:N": "the visible NVIDIA GPU number N, from 0",
        "mps": "the GPU of an Apple computer",
        "xpu": "an Intel GPU",
    }
    sure, host = {"cpu": "always there"}, this_host()
    ask = "mnist-bench doctor tells what torch sees"
    return [
        {
            "device": name,
            "meaning": meaning,
            "here": sure.get(name) or device_doubt(name.replace(":N", ""), host) or ask,
        }
        for name, meaning in meanings.items()
    ]


def _variants() -> list[dict[str, object]]:
    from mnist_bench.records import BUILTIN_VARIANTS, CompileOptions, Variant

    plain, plain_compile = Variant(name=""), CompileOptions()
    rows: list[dict[str, object]] = []
    for name, variant in BUILTIN_VARIANTS.items():
        changed = [
            *_changed(variant, plain, ("name", "compile")),
            *_changed(variant.compile, plain_compile, (), "compile."),
        ]
        rows.append({"variant": name, "settings": ", ".join(changed) or "the defaults"})
    return rows


def _changed(record: Any, plain: Any, but: tuple[str, ...], prefix: str = "") -> list[str]:
    """``key: value`` of each setting that differs from the default, as it would be written in a matrix."""
    names = [field.name for field in dataclasses.fields(record) if field.name not in but]
    values = [(name, getattr(record, name)) for name in names if getattr(record, name) != getattr(plain, name)]
    return [f"{prefix}{name}: {str(value).lower() if isinstance(value, bool) else value}" for name, value in values]
