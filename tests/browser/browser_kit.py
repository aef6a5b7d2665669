"""A headless Chromium that sees files alone, and what it has to say about a page."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
