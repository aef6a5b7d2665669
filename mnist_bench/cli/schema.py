"""``mnist-bench schema``: the JSON Schema of the matrix file."""

from __future__ import annotations

import argparse

from mnist_bench.cli.console import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Editors find it by the first line of a matrix file: # yaml-language-server: $schema=PATH"
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--format", choices=("json",), default="json", help="how to print (default: json)")
    formats.add_argument("--json", dest="format", action="store_const", const="json", help="same as --format json")


def execute(args: argparse.Namespace) -> int:
    from mnist_bench.config import schema

    print_json(schema())
    return 0
