"""What the browser tests share: where chromium is, waiting without evaluating text, and what a hover costs."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium on the PATH")

FRAME = 16  # milliseconds
SLACK = 4  # a shared machine is slower than a reader's


def until(page, condition: str, arg: object = None) -> None:
    """Poll a JavaScript function until it gives true (playwright's own wait evaluates text: the policy forbids it)."""
    end = time.monotonic() + 30
    while not page.evaluate(condition, arg):
        assert time.monotonic() < end, f"never became true: {condition}"
        page.wait_for_timeout(50)


def hover_cost(page, name: str, moves: int) -> tuple[float, float]:
    """Milliseconds from the start of a redraw until it is laid out, by the page's clock: the median and the largest."""
    costs = page.evaluate(
        """async ([name, moves]) => {
             const box = document.querySelector(".ex-stage").getBoundingClientRect();
             const costs = [];
             for (let i = 0; i < moves; i++) {
               const [x, y] = [(i * 0.37) % 1, (i * 0.61) % 1];
               const place = { clientX: box.left + box.width * x, clientY: box.top + box.height * y };
               document.querySelector(".ex-stage").dispatchEvent(new PointerEvent("pointermove", place));
               await new Promise((done) => requestAnimationFrame(done));
               document.documentElement.getBoundingClientRect();
               costs.push(performance.now() - performance.getEntriesByName(name)[0].startTime);
             }
             return costs;
           }""",
        [name, moves],
    )
    return float(np.median(costs)), max(costs)
