"""What the browser tests share: where chromium is, waiting without evaluating text, and what a hover costs."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
from pages import hover_costs

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
    costs = [1e3 * cost for cost in hover_costs(page, name, moves)]
    return float(np.median(costs)), max(costs)
