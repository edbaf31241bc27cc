"""Plotly figures as single pages that request nothing and run only the page's own code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mechvit.arguments import checked
from mechvit.visualization.style import DARK

from .licence_notices import embedded
from .page import render, write_whole
from .plotly_json import figure_spec

if TYPE_CHECKING:
    import plotly.graph_objects as go

HEIGHT = 450
"""Height in pixels of a figure that states none: plotly's default."""


@checked
def write_figure_page(figure: go.Figure, path: str | Path) -> Path:
    """Write a figure as one self-contained page under the policy of all pages (`page.CSP`) and return its path."""
    path = Path(path)
    text = render(
        "figure.html.j2",
        title=figure.layout.title.text or path.stem,
        height=int(figure.layout.height or HEIGHT),
        spec=figure_spec(figure),
        dark=DARK,
        **embedded("plotly.js"),
    )
    return write_whole(path, text)


@checked
def write_figure_pages(figures: Mapping[str, go.Figure], folder: str | Path) -> int:
    """Write each figure as NAME.html into a folder and return their number."""
    for name, figure in figures.items():
        write_figure_page(figure, Path(folder) / f"{name}.html")
    return len(figures)
