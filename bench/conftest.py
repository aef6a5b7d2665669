"""Flags of the pytest-benchmark suites."""

from __future__ import annotations

from pathlib import Path

import pytest

DEFAULT_MATRIX = Path(__file__).resolve().parents[1] / "benchmarks.yaml"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mnist_bench")
    group.addoption(
        "--matrix",
        type=Path,
        default=DEFAULT_MATRIX,
        metavar="FILE",
        help="bench_cells: the matrix file whose cells are measured (default: benchmarks.yaml)",
    )
    group.addoption(
        "--allow-plugins", action="store_true", help="bench_cells: run code that the matrix names as models"
    )
