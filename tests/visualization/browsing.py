"""Helpers of the browser tests: where chromium is, waiting without evaluating text, and what a hover costs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from pages import hover_costs

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.browser

FRAME = 16  # milliseconds
SLACK = 4  # a shared machine is slower than a reader's


class Visits:
    """Files opened offline, and every console message, page error and request of another kind."""

    def __init__(self, browser) -> None:
        self.browser = browser
        self.faults: list[str] = []
        self.contexts: list = []
        self.kept: dict[Path, object] = {}

    def open(self, path: Path, width: int = 1280, theme: str = "light", touch: bool = False, address: str = ""):
        context = self.browser.new_context(
            offline=True, viewport={"width": width, "height": 900}, color_scheme=theme, has_touch=touch
        )
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: self.faults.append(f"console {said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", self.request)
        page.goto(path.as_uri() + (f"#{address}" if address else ""))
        return page

    def open_once(self, path: Path, **options):
        """Return the page of an earlier call, as it was left."""
        if path not in self.kept:
            self.kept[path] = self.open(path, **options)
        return self.kept[path]

    def request(self, asked) -> None:
        if not asked.url.startswith(("file:", "data:", "blob:")):
            self.faults.append(f"request: {asked.url}")

    def close(self) -> None:
        for context in self.contexts:
            context.close()


def until(page, condition: str, arg: object = None) -> None:
    """Poll a JavaScript function until it gives true (playwright's own wait evaluates text: the policy forbids it)."""
    end = time.monotonic() + 30
    while not page.evaluate(condition, arg):
        assert time.monotonic() < end, f"never became true: {condition}"
        page.wait_for_timeout(50)


def scroll_through(page) -> None:
    """Bring every part of the page into view once, for two frames."""
    page.evaluate(
        """async () => {
             for (let place = 0; place < document.documentElement.scrollHeight; place += 800) {
               scrollTo({ top: place, behavior: 'instant' });
               await new Promise(requestAnimationFrame);
               await new Promise(requestAnimationFrame);
             }
           }"""
    )


def hover_cost(page, name: str, moves: int) -> tuple[float, float]:
    """Milliseconds from the start of a redraw until it is laid out, by the page's clock: the median and the largest."""
    costs = [1e3 * cost for cost in hover_costs(page, name, moves)]
    return float(np.median(costs)), max(costs)


def check_paper(page) -> None:
    """A dark page is light while it is printed, and dark again afterwards; nothing is left out to save ink."""
    shown = "[document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]"
    assert page.evaluate(shown) == ["dark", "rgb(23, 25, 29)"]
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(shown) == ["light", "rgb(255, 255, 255)"]
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).printColorAdjust") == "exact"
    assert not page.locator("#theme").is_visible()
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(shown) == ["dark", "rgb(23, 25, 29)"]
