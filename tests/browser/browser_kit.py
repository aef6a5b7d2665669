"""A headless Chromium that sees files alone, and what it has to say about a page."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import WebDriverWait

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


def missing() -> str | None:
    """Why no browser can be started here; None where one can."""
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(lacking)} not found: apt-get install chromium chromium-driver" if lacking else None


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser whose profile lies in ``profile``. The driver's path is given: nothing is looked up or downloaded."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = Service(executable_path=str(shutil.which("chromedriver")), log_output=os.devnull)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


@dataclass(frozen=True, slots=True)
class Page:
    """An open page. Made by ``open_page``."""

    driver: webdriver.Chrome
    url: str

    def ask(self, script: str, *arguments: object) -> object:
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
        return [str(text) for text in self.ask(script, selector)]  # type: ignore[attr-defined]

    def shot(self, path: Path) -> None:
        path.write_bytes(self.driver.get_screenshot_as_png())


def open_page(driver: webdriver.Chrome, path: Path, size: tuple[int, int] = DESKTOP, theme: str = "light") -> Page:
    """Opens a file, offline, and waits until its plots are drawn. What was logged before is forgotten."""
    width, height = size
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    emulate(driver, theme=theme)
    for log in ("browser", "performance"):
        driver.get_log(log)  # type: ignore[no-untyped-call]
    driver.get(path.resolve().as_uri())
    WebDriverWait(driver, 60).until(
        lambda d: d.execute_script("return document.documentElement.dataset.plots") == "drawn"
    )
    return Page(driver, path.resolve().as_uri())


def emulate(driver: webdriver.Chrome, *, theme: str = "light", media: str = "") -> None:
    """The system's theme, and ``media`` (``print``)."""
    features = [{"name": "prefers-color-scheme", "value": theme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def console(page: Page) -> list[str]:
    """Everything that the page, or the browser about it, has logged since it was opened."""
    return [entry["message"] for entry in page.driver.get_log("browser")]  # type: ignore[no-untyped-call]


def requests(page: Page) -> list[str]:
    """The addresses asked for since the page was opened."""
    messages = (
        json.loads(entry["message"])["message"]
        for entry in page.driver.get_log("performance")  # type: ignore[no-untyped-call]
    )
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
