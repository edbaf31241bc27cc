"""What the browser tests share: where chromium is, and waiting without evaluating text."""

from __future__ import annotations

import shutil
import time

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium on the PATH")


def until(page, condition: str, arg: object = None) -> None:
    """Poll a JavaScript function until it gives true (playwright's own wait evaluates text: the policy forbids it)."""
    end = time.monotonic() + 30
    while not page.evaluate(condition, arg):
        assert time.monotonic() < end, f"never became true: {condition}"
        page.wait_for_timeout(50)
