"""A real browser for the pages: Debian's Chromium, driven by Playwright. Where either is missing, the tests say which.

Screenshots go to the folder that DIFFPRIV_SCREENSHOTS names, outside the repository; without it none are kept.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.conftest import keyring

__all__ = ["keyring"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 180_000  # milliseconds: loading a model on a busy machine
REFUSED = "status of 400"  # how the browser notes an answer that says what was wrong with a form
WIDTHS = {1280: 900, 400: 800}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """open_page(url, width): a page of a fresh profile; at the end no message may be on its console."""
    pages, told = [], []

    def open_at(url: str, width: int = 1280, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": WIDTHS[width]}, accept_downloads=True, **options)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto(url)
        pages.append(page)
        return page

    yield open_at
    for page in pages:
        page.context.close()
    assert [text for text in told if REFUSED not in text] == [], "the browser's console has messages"


def screenshot(page: Any, name: str) -> None:
    """Keep what the page looks like, where somebody asked for it."""
    folder = os.environ.get("DIFFPRIV_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def serious_faults(page: Any) -> list[str]:
    """What axe-core calls serious or worse, by rule and element."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")]


def fits(page: Any) -> bool:
    """Whether nothing is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
