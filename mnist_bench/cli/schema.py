"""``mnist-bench schema``: the JSON Schema of the matrix file."""

import argparse
from pathlib import Path

from mnist_bench.cli.console import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Editors find it by the first line of a matrix file: # yaml-language-server: $schema=PATH"
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--format", choices=("json",), default="json", help="how to print (default: json)")
    formats.add_argument("--json", dest="format", action="store_const", const="json", help="same as --format json")


def execute(args: argparse.Namespace) -> int:
    print_json(Path(__file__).parents[1].joinpath("schema.json").read_text(encoding="utf-8"))
    return 0
