"""Flower's pages, as somebody sees them who looks at them with Chromium."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from flower_fleet import Fleet, until
from selenium import webdriver
from selenium.webdriver.common.by import By

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from selenium.webdriver.remote.webelement import WebElement

OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --force-prefers-reduced-motion "
    "--window-size=1400,900"
).split()

TABS = ("pool", "broker", "queues", "tasks", "limits", "config", "system", "other")

# Rows of all tables below an element: a round trip for each cell would be slow.
_ROWS = """
return Array.from(arguments[0].querySelectorAll("tbody tr")).map(
    row => Array.from(row.querySelectorAll("td")).map(cell => cell.innerText.trim()))
"""


class NoBrowser(Exception):
    """Chromium or its driver is not on this machine."""


@dataclass
class Pages:
    driver: webdriver.Chrome
    fleet: Fleet

    def open(self, path: str) -> None:
        self.driver.get(self.fleet.url + path)

    def one(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def click(self, css: str) -> None:
        element = self.one(css)
        # The bar at the top stays where it is, and would get the click meant for what is below it.
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        element.click()

    def text(self, css: str) -> str:
        return str(self.one(css).text)

    def rows(self, css: str) -> list[list[str]]:
        found: list[list[str]] = self.driver.execute_script(_ROWS, self.one(css))
        return found

    # -- a worker

    def open_worker(self, name: str, tab: str = "pool") -> None:
        """Its page with what it says of itself now; what is cached would be shown otherwise."""
        self.fleet.worker(name)
        self.open(f"/worker/{quote(name)}")
        self.open_tab(tab)

    def open_tab(self, tab: str) -> None:
        self.click(f"#worker-tab-{tab}")
        until(lambda: "show" in self.one(f"#tab-{tab}").get_attribute("class"))

    def values(self, tab: str) -> dict[str, str]:
        """What a tab of the worker's page says: its rows by their first cells."""
        self.open_tab(tab)
        return {row[0]: " ".join(row[1:]) for row in self.rows(f"#tab-{tab}")}

    # -- buttons

    def fill(self, css: str, value: object) -> None:
        field = self.one(css)
        field.clear()
        field.send_keys(str(value))

    def press(self, css: str) -> str:
        """What Flower then says."""
        count = len(self._said())
        self.click(css)
        until(lambda: len(self._said()) > count)
        return self._said()[-1]

    def _said(self) -> list[str]:
        return [
            found.get_property("textContent") for found in self.driver.find_elements(By.CSS_SELECTOR, ".toast-body")
        ]

    def severe(self) -> list[str]:
        """What the scripts of the pages have stumbled over since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def programs() -> tuple[str, str]:
    """(browser, driver)"""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        raise NoBrowser("There is no chromium and chromedriver on PATH: sh tests/install_browser.sh")
    return browser, driver


def browser(fleet: Fleet) -> AbstractContextManager[Pages]:
    """Pages of that Flower; NoBrowser, at once, if there is none."""
    return _running(fleet, *programs())


@contextmanager
def _running(fleet: Fleet, program: str, driver: str) -> Iterator[Pages]:
    with ExitStack() as stack:
        options = webdriver.ChromeOptions()
        options.binary_location = program
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # Chromium still writes there for a moment after it was told to end.
        profile = tempfile.TemporaryDirectory(prefix="aioretryq-browser-", ignore_cleanup_errors=True)
        for option in (*OPTIONS, f"--user-data-dir={stack.enter_context(profile)}"):
            options.add_argument(option)
        chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        stack.callback(chrome.quit)
        yield Pages(chrome, fleet)
