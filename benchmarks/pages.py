"""Time until an HTML page becomes usable in chromium: offline, from opening the file, by the page's own clock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WATCH = """
(() => {
  const times = { first: null, all: null };
  window.pageTimes = times;
  const look = () => {
    const any = (selector, test) => [...document.querySelectorAll(selector)].some(test);
    const all = (selector, test) => [...document.querySelectorAll(selector)].every(test);
    const plotted = (box) => box._fullLayout !== undefined && box.querySelector(".main-svg");
    const shown = (box) => box.closest("details:not([open])") || plotted(box);
    const drawn = (view) => view.dataset.drawn;
    const filled = (view) => view.dataset.thumbnails ?? view.matches(".pl");
    const there = document.readyState === "complete";
    if (times.first === null && (any(".plot", plotted) || any(".ex", drawn) || any("#detail canvas", () => true)))
      times.first = performance.now();
    if (there && times.first !== null && all(".plot, .pl-plot", shown) && all(".ex", drawn) && all(".ex", filled))
      times.all = performance.now();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""
"""Notes when the first figure stands, and when every figure (but those folded away) and view does, frame by frame."""
UNFOLD = """
async () => {
  const costs = [];
  for (const fold of document.querySelectorAll("details.fold")) {
    const start = performance.now();
    fold.open = true;
    fold.scrollIntoView();
    const box = fold.querySelector(".plot");
    while (!box.querySelector(".main-svg")) await new Promise(requestAnimationFrame);
    costs.push(performance.now() - start);
    fold.open = false;
  }
  return costs;
}
"""
"""From the opening of each fold until its first figure stands, in milliseconds."""
HEADS = """
async () => {
  const probe = new OffscreenCanvas(16, 16).getContext("2d", { willReadFrequently: true });
  const inked = (canvas) => {
    probe.clearRect(0, 0, 16, 16);
    if (canvas.width && canvas.height) probe.drawImage(canvas, 0, 0, 16, 16);
    return probe.getImageData(0, 0, 16, 16).data.some(Boolean);
  };
  const stands = (slot) => [slot.querySelectorAll(".cv-thumbs canvas"), slot.querySelectorAll(".cv-zoom canvas")]
    .every((part) => part.length && [...part].every(inked));
  const start = performance.now();
  document.querySelector(".cv").scrollIntoView();
  for (const slot of document.querySelectorAll(".cv-slot"))
    while (!stands(slot)) {
      if (slot.getBoundingClientRect().top > innerHeight) slot.scrollIntoView();
      await new Promise(requestAnimationFrame);
    }
  return performance.now() - start;
}
"""
"""From scrolling to circuitsvis's patterns until every panel of the shown set is drawn, in milliseconds."""
HOVER = """
async ([view, name, moves]) => {
  const stage = document.querySelector(view + " .ex-stage");
  const costs = [];
  for (let i = 0; i < moves; i++) {
    const box = stage.getBoundingClientRect();
    const [x, y] = [(i * 0.37) % 1, (i * 0.61) % 1];
    const place = { clientX: box.left + box.width * x, clientY: box.top + box.height * y };
    stage.dispatchEvent(new PointerEvent("pointermove", place));
    await new Promise((done) => requestAnimationFrame(done));
    document.documentElement.getBoundingClientRect();
    costs.push(performance.now() - performance.getEntriesByName(name)[0].startTime);
  }
  return costs;
}
"""
"""From the start of each redraw until the page is laid out again, in milliseconds."""
VIEWS = {"explorer redraw": ".ex:not(.pl)", "patch lens redraw": ".ex.pl"}
"""The name of each view's redraw in the browser's timeline, and its element."""


@dataclass(frozen=True, kw_only=True)
class PageTimes:
    """One opening of one page."""

    first: float
    """Seconds until the first figure stands."""
    all: float
    """Seconds until every figure and view stands and answers."""
    heads: float | None
    """Seconds from coming into view until every panel of circuitsvis stands; None for a page without any."""
    unfolding: tuple[float, ...]
    """Seconds from the opening of each fold until its first figure stands."""
    redraws: dict[str, tuple[float, ...]]
    """View's redraw -> seconds of each, for a pointer that wanders over the picture."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield Debian's chromium, controlled by playwright.

    Raises:
        ValueError: there is none on the PATH.
    """
    path = shutil.which("chromium")
    if path is None:
        raise ValueError("timing pages needs chromium on the PATH: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Browser, path: Path, *, patience: float = 60.0) -> PageTimes:
    """Open a page in a new window and measure it.

    Args:
        browser: of `chromium`.
        path: the page.
        patience: seconds after which a page that is not whole is given up.

    Raises:
        ValueError: it never became whole, or said something on the console.
    """
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        faults: list[str] = []
        page.on("console", lambda said: faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.add_init_script(WATCH)
        page.goto(path.resolve().as_uri())
        waited = 0.0
        while page.evaluate("pageTimes.all") is None:
            page.wait_for_timeout(50)
            waited += 0.05
            if waited > patience:
                raise ValueError(f"{path} was not whole after {patience:g} s: {'; '.join(faults) or 'no message'}")
        first, whole = page.evaluate("[pageTimes.first, pageTimes.all]")
        unfolding = tuple(cost / 1e3 for cost in page.evaluate(UNFOLD))
        heads = page.evaluate(HEADS) / 1e3 if page.locator(".cv").count() else None
        redraws = {name: hover_costs(page, name) for name in VIEWS if page.locator(VIEWS[name]).count()}
        if faults:
            raise ValueError(f"{path} said: {'; '.join(faults)}")
        return PageTimes(first=first / 1e3, all=whole / 1e3, heads=heads, unfolding=unfolding, redraws=redraws)
    finally:
        context.close()


def hover_costs(page: Page, name: str, moves: int = 40) -> tuple[float, ...]:
    """Return the seconds of each redraw of one of `VIEWS`, from its start until the page is laid out again."""
    return tuple(cost / 1e3 for cost in page.evaluate(HOVER, [VIEWS[name], name, moves]))
