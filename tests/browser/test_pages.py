"""The pages in a real browser: offline, drawn, quiet, usable from the keyboard, and what is hostile stays text."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[test]'")

from record_factory import keep, make_cell, make_failed, make_manifest, make_matrix
from run_factory import write_run
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait
from test_history import EVIL, add_run, on, timed

from mnist_bench.cli import main
from mnist_bench.records import BUILTIN_VARIANTS, ModelEntry, Variant

PHONE, DESKTOP = (390, 844), (1440, 900)
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # a container's root may not make one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
MARKUP = "<b>{{ 7*7 }}</b>\u2028'\"&amp;"
PLOTS = {"throughput", "devices", "compiled", "epochs", "time", "steps", "waterfall", "memory"}
# The marks of a plot that show figures, with the space that they take.
MARKS = """
return Array.from(document.querySelectorAll(".plot"), (place) => {
  const marks = Array.from(place.querySelectorAll("svg g.role-mark path, svg g.role-mark line, svg g.role-mark rect"));
  const drawn = marks.map((mark) => mark.getBoundingClientRect()).filter((box) => box.width + box.height > 1);
  return [place.dataset.plot, drawn.length, place.getBoundingClientRect().height];
})"""
WIDER = "const e = document.querySelector(arguments[0]); return e.scrollWidth - e.clientWidth"
OUTSIDE = """return Array.from(document.querySelectorAll("figure, .answers li, h1, h2, .plot svg"))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"""
GROUND = "return getComputedStyle(document.body).backgroundColor"
POINT = "return getComputedStyle(document.querySelector('[data-plot=throughput] g.mark-symbol path')).fill"
STRANGE = "return document.images.length + document.querySelectorAll('b, iframe, object').length"


@dataclass(frozen=True, slots=True)
class Page:
    """An open page, and what it has to say. Made by ``open_page``."""

    driver: Any  # a webdriver.Chrome: half of it is not annotated
    url: str

    def ask(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Keys one after the other, to whatever has the focus."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def focused(self) -> str:
        """Text or id of the element that has the focus."""
        return str(self.ask("const e = document.activeElement; return e.id || e.textContent.trim()"))

    def texts(self, selector: str) -> list[str]:
        """The text of every element that is shown."""
        script = """return Array.from(document.querySelectorAll(arguments[0]))
            .filter(e => e.getClientRects().length).map(e => e.textContent.trim())"""
        return [str(text) for text in self.ask(script, selector)]

    def emulate(self, *, theme: str = "light", media: str = "") -> None:
        """The system's theme, and ``media`` (``print``)."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def is_silent(self) -> bool:
        """Whether nothing was logged and nothing but the page asked for, since it was opened."""
        logged = [entry["message"] for entry in self.driver.get_log("browser")]
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert (logged, asked) in (([], [self.url]), ([], [])), "asked for more, or complained"
        return True


def open_page(driver: Any, path: Path, size: tuple[int, int] = DESKTOP, theme: str = "light") -> Page:
    """Opens a file, offline, and waits until its plots are drawn. What was logged before is forgotten."""
    page = Page(driver, path.resolve().as_uri())
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.emulate(theme=theme)
    for log in ("browser", "performance"):
        driver.get_log(log)
    driver.get(page.url)
    WebDriverWait(driver, 60).until(lambda _: page.ask("return document.documentElement.dataset.plots") == "drawn")
    return page


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """A headless Chromium that sees files alone. The driver's path is given: nothing is looked up or downloaded."""
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if lacking:
        # CI says that it has a browser: there a test that is skipped would be one that nobody runs.
        skip = pytest.fail if os.environ.get("MNIST_BENCH_REQUIRE_BROWSER") else pytest.skip
        skip(f"{' and '.join(lacking)} not found: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = Service(executable_path=str(shutil.which("chromedriver")), log_output=os.devnull)
    started = webdriver.Chrome(options=options, service=service)
    yield started
    started.quit()


def report_of(folder: Path, *models: str, **axes: Any) -> Path:
    run = write_run(folder, *models, epochs=5, **axes)
    main(["report", str(run.path)])
    return run.path / "report.html"


@pytest.fixture(scope="session")
def page_file(tmp_path_factory):
    """The report of a run with figures, failed cells, skipped cells, and hostile names."""
    variants = *(BUILTIN_VARIANTS[name] for name in ("eager", "compile")), Variant(name=MARKUP)
    return report_of(tmp_path_factory.mktemp("results"), EVIL, "cnn", variants=variants, batch_sizes=(100, 10000))


@pytest.fixture(scope="session")
def history_file(tmp_path_factory):
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


def test_rates_that_differ_little_are_labelled(driver, tmp_path):
    """6,600 to 7,100 lie far from a power of ten: given a format, a logarithmic axis labels one tick of them."""
    trials = [timed(seconds, seed=seed) for seed, seconds in enumerate((8.90, 8.78, 8.65))]
    matrix = make_matrix(seeds=(0, 1, 2), variants=(BUILTIN_VARIANTS["eager"],))
    run = keep(tmp_path, make_manifest([trial.id for trial in trials], matrix=matrix), trials)
    main(["report", str(run.path)])
    texts = open_page(driver, run.path / "report.html").texts("[data-plot=throughput] g.role-axis-label text")
    assert sum(text.endswith("k") for text in texts) > 2


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_plot_is_drawn_offline_in_silence_and_within_the_screen(driver, page_file, size):
    page = open_page(driver, page_file, size)
    found = page.ask(MARKS)
    assert {plot for plot, *_ in found} == PLOTS
    assert len(found) == page_file.read_text("utf-8").count('class="plot"')
    assert not [plot for plot, drawn, height in found if drawn < 2 or height < 60], "empty or flat"
    assert page.is_silent()
    assert (page.ask(WIDER, "html"), page.ask("return innerWidth"), page.ask(OUTSIDE)) == (0, size[0], [])
    assert size == DESKTOP or page.ask(WIDER, "#cells .scroll") > 0, "the table scrolls in its own frame"
    assert (page.ask(STRANGE), page.ask("return document.scripts.length")) == (0, 3)
    assert EVIL in page.texts("#table tbody td:nth-child(2)")
    assert EVIL in page.texts("#throughput h3")
    assert "cpu · <b>{{ 7*7 }}</b> '\"&amp;" in page.texts("#throughput .legend li")


def test_tooltip_shows_figures_and_the_policy_lets_it(driver, page_file):
    page = open_page(driver, page_file)
    page.ask("""
        const point = document.querySelector("[data-plot=throughput] g.mark-symbol path");
        point.scrollIntoView({block: "center"});
        const box = point.getBoundingClientRect();
        for (const type of ["pointerover", "mouseover", "pointermove", "mousemove"])
          point.dispatchEvent(new PointerEvent(type, {bubbles: true, clientX: box.x + 4, clientY: box.y + 4}));
    """)
    assert dict(zip(page.texts("#tooltip dt"), page.texts("#tooltip dd"), strict=True))["batch size"] == "100"
    assert "samples/s" in page.texts("#tooltip")[0]
    assert page.is_silent()


def test_themes_follow_the_system_and_the_button_and_paper_is_light(driver, page_file):
    page = open_page(driver, page_file, theme="dark")
    dark, dark_point = page.ask(GROUND), page.ask(POINT)
    page.ask("document.getElementById('theme').focus()")
    page.press(Keys.ENTER)
    assert page.ask(GROUND) != dark
    assert page.ask(POINT) != dark_point
    assert page.texts("#theme") == ["Dark theme"]
    page.press(Keys.ENTER)
    assert (page.ask(GROUND), page.ask(POINT)) == (dark, dark_point)
    page.emulate(theme="dark", media="print")
    assert page.ask(GROUND) == "rgb(255, 255, 255)"
    assert page.texts("nav, #theme, .tools") == []
    page.emulate()


def test_the_table_sorts_and_filters_from_the_keyboard(driver, page_file):
    page = open_page(driver, page_file)
    page.press(Keys.TAB)
    assert page.focused() == "Skip to the table of cells"
    page.press(Keys.ENTER, Keys.TAB)
    assert page.focused() == "filter"
    page.press("CNN/cpu/")  # which stands in no column: the cell's id
    assert set(page.texts("#table tbody td:nth-child(2)")) == {"cnn"}
    assert set(page.texts("#table tbody td:nth-child(3)")) == {"cpu"}
    assert page.texts("#shown") == ["6 of 23 cells"]
    page.press(Keys.TAB)
    assert page.focused() == "status"
    page.press(Keys.TAB, Keys.TAB)
    assert page.ask("return document.activeElement.closest('th') !== null"), "the first header"
    while page.focused() != "samples/s":
        page.press(Keys.TAB)
    sort = "return document.activeElement.closest('th').ariaSort"
    page.press(Keys.ENTER)
    rates = column(page, "samples/s")
    assert (page.ask(sort), len(rates), rates) == ("descending", 6, sorted(rates, reverse=True))
    page.press(Keys.SPACE)
    assert (page.ask(sort), column(page, "samples/s")) == ("ascending", sorted(rates))
    assert page.is_silent()


def column(page: Page, header: str) -> list[float]:
    """The figures of a column, in the order shown; intervals cut off."""
    texts = page.texts(f"#table tbody td:nth-child({page.texts('#table thead th').index(header) + 1})")
    return [float(text.partition("[")[0].replace(",", "")) for text in texts]


def test_what_is_missing_is_sorted_last_both_ways_and_a_status_is_found(driver, page_file):
    page = open_page(driver, page_file)
    statuses = "#table tbody td:first-child .badge"
    page.ask("Array.from(document.querySelectorAll('th button')).find(b => b.textContent === 'accuracy').focus()")
    for _ in range(2):
        page.press(Keys.ENTER)
        assert page.texts(statuses)[0] == "ok"
        assert len(page.texts("#table td.reason")) == 2
        assert set(page.texts(statuses)[-2:]) == {"oom"}
    page.ask("document.getElementById('status').focus()")
    page.press("o")  # types ahead to oom
    assert set(page.texts(statuses)) == {"oom"}


def test_of_very_many_cells_groups_are_listed_and_a_cell_is_found_by_its_id(driver, tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_bench.report.page.MOST_CELLS", 10)
    page = open_page(driver, report_of(tmp_path, "mlp", "cnn", trouble={"cnn/cpu/b100/bf16": ("oom", "too large")}))
    groups, names = page.texts("#table tbody tr"), "#table tbody td:nth-child(5)"
    assert (len(groups), page.texts("#shown")) == (8, ["8 groups of 24 cells"])
    page.ask("document.getElementById('filter').focus()")
    page.press("cnn/cuda/b1000/compile")
    assert (page.texts(names)[0][:7], page.texts("#shown")) == ("compile", ["1 of 24 cells"])
    page.press(Keys.ESCAPE)  # which empties the field
    assert page.texts("#table tbody tr") == groups
    page.ask("document.getElementById('status').focus()")
    page.press("o", "o")  # ok, then oom, whichever comes first
    assert page.texts("#shown")[0] in ("1 of 24 cells", "23 of 24 cells")
    assert page.is_silent()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_history_is_drawn_in_silence_and_hostile_names_are_text(driver, history_file, size):
    page = open_page(driver, history_file, size)
    marks = """return Array.from(document.querySelectorAll('.plot')).map(
        plot => plot.querySelectorAll('svg .mark-symbol path').length)"""
    assert page.ask(marks) == [19, 20]
    assert ["✕" in text for text in page.texts(".plot")] == [True, False]
    assert page.is_silent()
    assert page.ask(WIDER, "html") == 0
    assert size == PHONE or page.ask(WIDER, ".scroll") == 0, "the last column, the change, is seen without scrolling"
    assert page.ask(STRANGE) == 0
    assert f"{EVIL}/cpu/b100/eager" in page.texts("h3")
    assert any(EVIL in text for text in page.texts(".legend li"))
