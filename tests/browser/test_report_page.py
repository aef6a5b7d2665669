"""The report in a real browser: offline, drawn, quiet, and usable from the keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser_kit import DESKTOP, PHONE, Page, console, emulate, open_page, requests
from run_factory import Plan
from selenium.webdriver import Chrome, Keys

from mnist_bench.records import Variant

HOSTILE = "</script><img src=x onerror=alert(1)>"
PLOTS = {"throughput", "devices", "compiled", "epochs", "time", "steps", "waterfall", "memory"}
# The marks of a plot that show figures, with the space that they take.
MARKS = """
return Array.from(document.querySelectorAll(".plot"), (place) => {
  const marks = Array.from(place.querySelectorAll("svg g.role-mark path, svg g.role-mark line, svg g.role-mark rect"));
  const drawn = marks.map((mark) => mark.getBoundingClientRect()).filter((box) => box.width + box.height > 1);
  const colours = new Set(marks.map((mark) => getComputedStyle(mark).fill + getComputedStyle(mark).stroke));
  return [place.dataset.plot, drawn.length, colours.size, place.getBoundingClientRect().height];
})"""


@pytest.fixture(scope="module")
def hostile_file(report_of: Callable[[Plan], Path]) -> Path:
    variants = (Variant(name="eager"), Variant(name="<b>{{ 7*7 }}</b>\u2028'\"&amp;", execution="compile"))
    return report_of(Plan(models=(HOSTILE, "mlp"), variants=variants, batch_sizes=(100, 1000)))


@pytest.fixture(scope="class")
def page(driver: Chrome, page_file: Path) -> Page:
    return open_page(driver, page_file)


@pytest.fixture(scope="class")
def hostile(driver: Chrome, hostile_file: Path) -> Page:
    return open_page(driver, hostile_file)


class TestAsItOpens:
    """Tests that look at the page and leave it as it is: it is opened once."""

    def test_every_plot_is_drawn(self, page: Page, page_file: Path) -> None:
        found = page.ask(MARKS)
        assert isinstance(found, list)
        assert {plot for plot, *_ in found} == PLOTS
        assert len(found) == page_file.read_text("utf-8").count('class="plot"')
        for plot, drawn, colours, height in found:
            assert drawn >= 2, f"{plot} is empty"
            assert colours >= 1
            assert height > 60, f"{plot} is flat"
        assert console(page) == []
        assert requests(page) == [page.url], "the page asked for more than itself"

    def test_tooltip_shows_figures_and_the_policy_lets_it(self, page: Page) -> None:
        page.ask("""
            const point = document.querySelector("[data-plot=throughput] g.mark-symbol path");
            point.scrollIntoView({block: "center"});
            const box = point.getBoundingClientRect();
            for (const type of ["pointerover", "mouseover", "pointermove", "mousemove"])
              point.dispatchEvent(new PointerEvent(type, {bubbles: true, clientX: box.x + 4, clientY: box.y + 4}));
        """)
        assert "samples/s" in page.texts("#tooltip")[0]
        assert console(page) == []


class TestWhatIsSeen:
    @pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
    def test_page_never_scrolls_sideways(self, driver: Chrome, page_file: Path, size: tuple[int, int]) -> None:
        page = open_page(driver, page_file, size)
        widths = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth, window.innerWidth]"
        scroll, client, window = page.ask(widths)  # type: ignore[misc]
        assert scroll == client
        assert window == size[0]
        wider = page.ask("""return Array.from(document.querySelectorAll("figure, .tile, h1, h2, .plot svg"))
            .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))""")
        assert wider == []

    def test_table_scrolls_in_its_own_frame_on_a_phone(self, driver: Chrome, page_file: Path) -> None:
        page = open_page(driver, page_file, PHONE)
        frame = page.ask("const f = document.querySelector('#cells .scroll'); return [f.scrollWidth, f.clientWidth]")
        assert isinstance(frame, list)
        assert frame[0] > frame[1]

    def test_themes_follow_the_system_and_the_button(self, driver: Chrome, page_file: Path) -> None:
        page = open_page(driver, page_file, theme="dark")
        ground = "return getComputedStyle(document.body).backgroundColor"
        point = """return getComputedStyle(document.querySelector("[data-plot=throughput] g.mark-symbol path")).fill"""
        dark, dark_point = page.ask(ground), page.ask(point)
        page.ask("document.getElementById('theme').focus()")
        page.press(Keys.ENTER)
        light, light_point = page.ask(ground), page.ask(point)
        assert (dark, light) == ("rgb(16, 18, 20)", "rgb(247, 247, 244)")
        assert dark_point != light_point
        assert page.texts("#theme") == ["Dark theme"]

    def test_on_paper_it_is_light_and_without_controls(self, driver: Chrome, page_file: Path) -> None:
        page = open_page(driver, page_file, theme="dark")
        emulate(driver, theme="dark", media="print")
        assert page.ask("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.texts("nav, #theme, .tools") == []
        emulate(driver)


class TestTable:
    def test_sorts_and_filters_from_the_keyboard(self, driver: Chrome, page_file: Path) -> None:
        page = open_page(driver, page_file)
        page.press(Keys.TAB)
        assert page.focused() == "Skip to the table of cells"
        page.press(Keys.ENTER, Keys.TAB)
        assert page.focused() == "filter"
        page.press("CNN cpu")
        assert set(page.texts("#table tbody td:nth-child(2)")) == {"cnn"}
        assert set(page.texts("#table tbody td:nth-child(3)")) == {"cpu"}
        assert page.texts("#shown") == ["6 of 24 cells"]
        page.press(Keys.TAB)
        assert page.focused() == "status"
        page.press(Keys.TAB, Keys.TAB)
        assert page.ask("return document.activeElement.closest('th') !== null"), "the first header"
        while page.focused() != "samples/s":
            page.press(Keys.TAB)
        page.press(Keys.ENTER)
        assert sort_of(page, "samples/s") == "descending"
        rates = column(page, "samples/s")
        assert len(rates) == 6
        assert rates == sorted(rates, reverse=True)
        page.press(Keys.SPACE)
        assert sort_of(page, "samples/s") == "ascending"
        assert column(page, "samples/s") == sorted(rates)
        assert console(page) == []

    def test_what_is_missing_is_sorted_last_both_ways(self, driver: Chrome, page_file: Path) -> None:
        page = open_page(driver, page_file)
        page.ask("Array.from(document.querySelectorAll('th button')).find(b => b.textContent === 'accuracy').focus()")
        for _ in range(2):
            page.press(Keys.ENTER)
            statuses = page.texts("#table tbody td:first-child .badge")
            assert statuses[0] in ("ok", "crashed")
            lacking = len(page.texts("#table td.reason"))
            assert lacking == 4
            assert set(statuses[-lacking:]) == {"oom", "skipped"}

    def test_filters_by_status(self, driver: Chrome, page_file: Path) -> None:
        page = open_page(driver, page_file)
        page.ask("document.getElementById('status').focus()")
        page.press("s")  # types ahead to skipped
        assert set(page.texts("#table tbody td:first-child .badge")) == {"skipped"}


def sort_of(page: Page, header: str) -> object:
    script = (
        "return Array.from(document.querySelectorAll('th')).find(h => h.innerText.trim() === arguments[0]).ariaSort"
    )
    return page.ask(script, header)


def column(page: Page, header: str) -> list[float]:
    """The figures of a column, in the order shown; intervals cut off."""
    headers = page.texts("#table thead th")
    texts = page.texts(f"#table tbody td:nth-child({headers.index(header) + 1})")
    return [float(text.partition("[")[0].replace(",", "")) for text in texts]


class TestHostileRun:
    def test_name_stays_text_everywhere(self, hostile: Page) -> None:
        assert hostile.ask("return document.images.length + document.querySelectorAll('b, iframe, object').length") == 0
        assert hostile.ask("return document.scripts.length") == 3
        assert HOSTILE in hostile.texts("#table tbody td:nth-child(2)")
        assert HOSTILE in hostile.texts("#throughput h3")
        assert "cpu · <b>{{ 7*7 }}</b> '\"&amp;" in hostile.texts("#throughput .legend li")
        labels = hostile.ask(
            "return Array.from(document.querySelectorAll('figure [role=img]'), p => p.getAttribute('aria-label'))"
        )
        assert any(HOSTILE in label for label in labels)  # type: ignore[attr-defined]

    def test_nothing_ran_and_nothing_was_asked_for(self, hostile: Page) -> None:
        assert hostile.ask("return document.documentElement.dataset.plots") == "drawn"
        assert console(hostile) == []
        assert requests(hostile) == [hostile.url]
