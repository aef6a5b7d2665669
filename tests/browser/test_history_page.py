"""The page of the history in a browser: every plot drawn, nothing asked of the network, hostile names are text."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_kit import DESKTOP, PHONE, console, open_page, requests
from record_factory import make_cell, make_failed, make_matrix
from selenium.webdriver import Chrome
from test_history import EVIL, add_run, on, timed

from mnist_bench.cli import main
from mnist_bench.records import ModelEntry

WIDER = "const e = document.querySelector(arguments[0]); return e.scrollWidth - e.clientWidth"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 runs on two machines; the 7th failed for one of the two cells."""
    folder = tmp_path_factory.mktemp("history")
    matrix = make_matrix(models=tuple(ModelEntry(name=name, model="mlp") for name in ("mlp", EVIL)))
    for number in range(1, 21):
        seconds = 3.0 + (number * 7 % 5) / 5
        evil = timed(seconds, model=EVIL) if number != 7 else make_failed(make_cell(model=EVIL), reason=EVIL)
        machine = on(cpu=EVIL if number % 4 == 0 else "AMD EPYC 9B14, Genoa", dirty=number % 2 == 0)
        add_run(folder / "results", number, [timed(seconds), evil], matrix=matrix, environment=machine)
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
    assert page.ask(WIDER, "html") == 0
    assert size == PHONE or page.ask(WIDER, ".scroll") == 0, "the last column, the change, is seen without scrolling"


def test_hostile_names_are_text(driver: Chrome, page_file: Path) -> None:
    page = open_page(driver, page_file)
    assert page.ask("return document.images.length") == 0
    assert f"{EVIL}/cpu/b100/eager" in page.texts("h3")
    assert any(EVIL in text for text in page.texts(".legend li"))
