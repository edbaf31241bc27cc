"""Readings of the feature browser's page, for its tests."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def latents(page) -> list[int]:
    return [
        int(row)
        for row in page.evaluate("[...document.querySelectorAll('#list tbody tr')].map((row) => row.dataset.latent)")
    ]


def column(page, place: int) -> list[str]:
    return page.locator(f"#list tbody td:nth-child({place})").all_inner_texts()


def status(page, value: str) -> None:
    page.get_by_label("Which latents").select_option(value)


def slide(page, name: str, value: int) -> None:
    page.evaluate(
        """([name, value]) => {
             const slider = document.querySelector(`input[aria-label="${name}"]`);
             slider.value = value; slider.dispatchEvent(new Event('input'));
           }""",
        [name, value],
    )


def pixels(page, selector: str) -> np.ndarray:
    """The canvas as [row, column, rgb], once it is drawn and stays so."""
    before, shown = None, ""
    blank = page.evaluate(
        "side => { const c = document.createElement('canvas'); c.width = c.height = side; return c.toDataURL(); }",
        page.evaluate("selector => document.querySelector(selector).width", selector),
    )
    while shown != before or shown == blank:
        before = shown
        page.wait_for_timeout(100)
        shown = page.evaluate("selector => document.querySelector(selector).toDataURL()", selector)
    picture = Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2])))
    return np.asarray(picture.convert("RGB"), float)
