"""Readings and actions on the explorer's page, for its tests."""

from __future__ import annotations

import numpy as np
from browsing import until


def drawn(page, **wanted: int) -> None:
    """Wait until the panels show this state (picture, corruption, row, cell, query, locked)."""
    until(
        page,
        """(wanted) => {
             const names = ["picture", "corruption", "row", "cell", "query", "locked"];
             const text = document.querySelector(".ex").dataset.drawn;
             return text && Object.entries(wanted).every(([k, v]) => text.split(" ")[names.indexOf(k)] === String(v));
           }""",
        wanted,
    )


def alpha(page, panel: int) -> np.ndarray:
    """The opacity of each patch's overlay, 0 to 255, as it is on the screen's canvas."""
    values = page.evaluate(
        """(panel) => {
             const canvas = document.querySelectorAll(".ex-stage canvas")[panel];
             const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
             return [...data].filter((_, i) => i % 4 === 3);
           }""",
        panel,
    )
    return np.asarray(values, np.float64)


def heat(patches: np.ndarray, top: float, opacity: float = 0.85, root: bool = True) -> np.ndarray:
    """The opacity that `alpha` must give for weights: the more attention, the more opaque."""
    unit = np.minimum(1, patches / top)
    return 255 * opacity * (0.35 + 0.65 * np.sqrt(np.sqrt(unit) if root else unit))


def colours(page, panel: int) -> np.ndarray:
    """[patch, rgb] of a panel's canvas."""
    values = page.evaluate(
        """(panel) => {
             const canvas = document.querySelectorAll(".ex-stage canvas")[panel];
             return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
           }""",
        panel,
    )
    return np.asarray(values).reshape(-1, 4)[:, :3]


def move_to(page, panel: int, row: int, column: int, side: int = 4) -> None:
    box = page.locator(".ex-stage").nth(panel).bounding_box()
    place = [box["x"] + box["width"] * (column + 0.5) / side, box["y"] + box["height"] * (row + 0.5) / side]
    page.mouse.move(*place)


def patch(row: int, column: int, prefix: int = 1, side: int = 4) -> int:
    return prefix + row * side + column


def top_of(spec: dict, picture: int, corruption: int, layer: int, head: int) -> float:
    """The largest weight of a head over the four panels."""
    panels = spec["pictures"][picture]["panels"]
    return max(panels[m][c]["scale"][layer][head] for m in (0, 1) for c in (0, corruption))


def choose(page, title: str, option: str) -> None:
    page.locator(".cv-choice", has_text=title).get_by_label(option, exact=True).check(force=True)
