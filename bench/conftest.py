"""Flags of the pytest-benchmark suites, and the way to the factories of the tests."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_MATRIX = ROOT / "benchmarks.yaml"

sys.path.append(str(ROOT / "tests"))  # record_factory, run_factory


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


@pytest.fixture(scope="session")
def sized(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """How many batch sizes a matrix is to have: a handful where nothing is timed (``--benchmark-disable``)."""
    return (lambda count: min(count, 5)) if pytestconfig.getoption("benchmark_disable") else (lambda count: count)
