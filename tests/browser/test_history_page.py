"""The page of the history in a browser: every plot drawn, nothing asked of the network, hostile names are text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from browser_kit import DESKTOP, PHONE, console, open_page, requests
from record_factory import make_cell, make_epochs, make_failed, make_manifest, make_matrix, make_measurement, make_trial
from selenium.webdriver import Chrome

from mnist_bench.cli import main
from mnist_bench.disk.folder import RunFolder
from mnist_bench.records import ModelEntry, Trial

EVIL = "</script><img src=x onerror=alert(1)>"
MODELS = ("mlp", EVIL)


def add_run(results: Path, number: int, trials: Sequence[Trial], cpu: str) -> None:
    manifest = make_manifest(
        trials,
        run_id=f"202611{number:02}T101500Z-a1b2c3",
        started_at=f"2026-11-{number:02}T10:15:00Z",
        matrix=make_matrix(models=tuple(ModelEntry(name=name, model=name) for name in MODELS)),
        environment=replace(make_manifest().environment, cpu=cpu, dirty=number % 2 == 0),
    )
    folder = RunFolder.create(results, manifest)
    with folder.lock():
        for trial in trials:
            folder.append(trial)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 runs on two machines; the 7th failed for one of the two cells."""
    folder = tmp_path_factory.mktemp("history")
    for number in range(1, 21):
        seconds = 3.0 + (number * 7 % 5) / 5
        outcome = make_measurement(epochs=make_epochs([seconds], [0.9]), train_samples=60_000)
        trials = [make_trial(make_cell(model=name), 0, outcome) for name in MODELS]
        if number == 7:
            trials[1] = make_failed(make_cell(model=EVIL), reason=EVIL)
        add_run(folder / "results", number, trials, EVIL if number % 4 == 0 else "AMD EPYC")
    main(["history", "-o", str(folder / "results"), "--page", str(folder / "page.html")])
    return folder / "page.html"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_plot_is_drawn_offline_and_in_silence(driver: Chrome, page_file: Path, size: tuple[int, int]) -> None:
    page = open_page(driver, page_file, size)
    marks = """return Array.from(document.querySelectorAll('.plot')).map(
        plot => plot.querySelectorAll('svg .mark-symbol path').length)"""
    assert page.ask(marks) == [19, 20]
    assert ["✕" in text for text in page.texts(".plot")] == [True, False]
    assert (console(page), requests(page)) == ([], [page.url])
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.ask(overflow) == 0


def test_hostile_names_are_text(driver: Chrome, page_file: Path) -> None:
    page = open_page(driver, page_file)
    assert page.ask("return document.images.length") == 0
    assert f"{EVIL}/cpu/b100/eager" in page.texts("h3")
    assert any(EVIL in text for text in page.texts(".legend li"))
