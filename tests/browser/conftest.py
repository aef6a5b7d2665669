from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[test]'")

from browser_kit import chromium, missing  # noqa: E402
from run_factory import Plan, write_run  # noqa: E402
from selenium.webdriver import Chrome  # noqa: E402

from mnist_bench.cli import main  # noqa: E402


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    if reason := missing():
        # CI says that it has a browser: there a test that is skipped would be one that nobody runs.
        (pytest.fail if os.environ.get("MNIST_BENCH_REQUIRE_BROWSER") else pytest.skip)(reason)
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="session")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Plan], Path]:
    """Makes the page of a run that ``run_factory`` writes, by the command itself."""

    def make(plan: Plan) -> Path:
        folder = write_run(tmp_path_factory.mktemp("results"), plan)
        main(["report", str(folder.path)])
        return folder.path / "report.html"

    return make


@pytest.fixture(scope="session")
def page_file(report_of: Callable[[Plan], Path]) -> Path:
    """The report of a run with figures, failed cells, skipped cells and noise."""
    return report_of(Plan(models=("mlp", "cnn"), batch_sizes=(100, 10000)))
