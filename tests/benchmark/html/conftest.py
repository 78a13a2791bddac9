"""Pages in a real browser: Chromium of the system, driven by playwright's Python package."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser; without one the tests of pages are skipped."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium: install it (apt-get install chromium) to test the HTML pages")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def watched(chromium: Any, folder: Path) -> Iterator[Callable[..., Any]]:
    """Open pages and wait for their charts; at the end nothing was requested, and nothing complained on the console."""
    contexts, complaints, requests = [], [], []

    def show(html: str, width: int = 1200, **options: Any) -> Any:
        file = folder / "page.html"
        file.write_text(html, encoding="utf-8")
        context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
        context.set_default_timeout(300_000)  # drawing takes two seconds of a core that others may use
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield show
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.rpartition("/")[2] for url in requests} <= {"page.html"}


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page for one test."""
    with watched(chromium, tmp_path) as show:
        yield show


@pytest.fixture(scope="module")
def opened_once(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens a page for tests that leave it as it was: drawing its charts takes two seconds."""
    with watched(chromium, tmp_path_factory.mktemp("page")) as show:
        yield show
