"""Positions of a figure's panels, and their rearrangement in a narrow column."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects as go

LABEL, TICK = 8 * 96 / 72, 7 * 96 / 72
"""Pixels of 8 pt text (titles and labels) and of 7 pt text (ticks)."""
LINE = 1.2
"""Line spacing in font sizes."""
CHARACTER = 0.52
"""Mean width of a character of a sans-serif font, in font sizes."""
PAGE = 920
"""Width in pixels for which figures are drawn on the page."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes."""

    x: Any
    """Its `layout.xaxis`."""
    y: Any
    row: int
    column: int
    """Indices from the top and from the left."""
    width: float
    height: float
    """Width and height as shares of the plot's."""
    title: Any = None
    """The annotation above it, or None."""
    categories: tuple[list[str], list[str]]
    """Names along x and y; empty for numbers."""
    reach: float
    """Largest number along x; 0 for names."""


def wrapped(text: str | None, pixels: float, size: float) -> str:
    """Break a label into lines that fit, keeping bold tags around all of it."""
    if not text:
        return ""
    bold = text.startswith("<b>") and text.endswith("</b>")
    words = text.removeprefix("<b>").removesuffix("</b>").replace("<br>", " ")
    width = max(6, int(pixels / (size * CHARACTER * (1.06 if bold else 1))))
    if max(map(len, words.split())) > width:
        words = words.replace("–", "– ")  # a compound such as Kolmogorov–Smirnov
    lines = "<br>".join(textwrap.wrap(words, width, break_long_words=False))
    return f"<b>{lines}</b>" if bold else lines


def lines_of(text: str | None) -> int:
    """Return the number of lines of a label."""
    return text.count("<br>") + 1 if text else 0


def text_width(texts: list[str], size: float) -> float:
    """Return the width of the longest line in pixels."""
    return max((len(line) for text in texts for line in str(text).split("<br>")), default=0) * size * CHARACTER


def panels_of(figure: go.Figure) -> list[Panel]:
    """Return every pair of axes with its position in the grid made by `make_subplots` or a single plot."""
    pairs = [(x, _axis(figure, x.anchor)) for x in figure.select_xaxes()] or [
        (figure.layout.xaxis, figure.layout.yaxis)
    ]
    boxes = [(x.domain or (0, 1), y.domain or (0, 1)) for x, y in pairs]
    lefts = sorted({round(x[0], 4) for x, _ in boxes})
    bottoms = sorted({round(y[0], 4) for _, y in boxes}, reverse=True)
    panels = []
    for (x, y), (across, up) in zip(pairs, boxes, strict=True):
        above = [
            note
            for note in figure.layout.annotations
            if note.xref == "paper" and np.allclose([note.x, note.y], [sum(across) / 2, up[1]], atol=1e-3)
        ]
        panels.append(
            Panel(
                x=x,
                y=y,
                row=bottoms.index(round(up[0], 4)),
                column=lefts.index(round(across[0], 4)),
                width=across[1] - across[0],
                height=up[1] - up[0],
                title=above[0] if above else None,
                categories=(_categories(figure, x, "x"), _categories(figure, y, "y")),
                reach=_reach(figure, x),
            )
        )
    return panels


def folded(panels: list[Panel], across: int) -> list[Panel]:
    """Rearrange panels to at most `across` side by side: further columns go below, block by block."""
    rows, columns = (1 + max(getattr(panel, name) for panel in panels) for name in ("row", "column"))
    if columns <= across:
        return panels
    share = min(columns, across) / columns
    return [
        replace(
            panel,
            row=panel.column // across * rows + panel.row,
            column=panel.column % across,
            width=panel.width / share,
        )
        for panel in panels
    ]


def _axis(figure: go.Figure, anchor: str | None) -> Any:
    """Return the y axis of an anchor: `layout.yaxis2` for `y2`."""
    return figure.layout[f"yaxis{(anchor or 'y')[1:]}"]


def _along(figure: go.Figure, axis: Any, letter: str) -> list[Any]:
    """Return the coordinates of every trace on one axis."""
    own = letter + axis.plotly_name.removeprefix(f"{letter}axis")
    traces = [trace for trace in figure.data if (getattr(trace, f"{letter}axis") or letter) == own]
    return [value for trace in traces if trace[letter] is not None for value in trace[letter]]


def _reach(figure: go.Figure, axis: Any) -> float:
    """Return the largest number on an x axis."""
    numbers = (value for value in _along(figure, axis, "x") if isinstance(value, (int, float, np.number)))
    return max(map(float, numbers), default=0.0)


def _categories(figure: go.Figure, axis: Any, letter: str) -> list[str]:
    """Return the names along one axis, in drawing order."""
    if axis.ticktext is not None:
        return [str(text) for text in axis.ticktext]
    return list(dict.fromkeys(value for value in _along(figure, axis, letter) if isinstance(value, str)))
