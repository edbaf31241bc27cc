"""A matrix of numbers whose colour is a change over the base: what the performance and transfer figures share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from ..style import GRID, INK, PAPER, RAMPS, finish

_LOW, _HIGH = RAMPS["gaussian_noise"][0], RAMPS["gaussian_blur"][0]
SCALE = [[0, _LOW[1]], [0.25, _LOW[0]], [0.5, GRID], [0.75, _HIGH[0]], [1, _HIGH[1]]]
"""Orange below, grey at none, blue above: told apart by colour-blind readers."""


def sure(
    low: Float[np.ndarray, "rows columns"], high: Float[np.ndarray, "rows columns"]
) -> Bool[np.ndarray, "rows columns"]:
    """Where an interval excludes zero."""
    return (low > 0) | (high < 0)


def bold(texts: Sequence[Sequence[str]], where: Bool[np.ndarray, "rows columns"]) -> list[list[str]]:
    """The texts of a matrix, bold where it is so."""
    return [
        [f"<b>{text}</b>" if strong else text for text, strong in zip(row, strongs, strict=True)]
        for row, strongs in zip(texts, where, strict=True)
    ]


def change_map(
    change: Float[np.ndarray, "rows columns"],
    text: Sequence[Sequence[str]],
    *,
    x: Sequence[str],
    y: Sequence[str],
    title: str,
    hover: str,
    customdata: np.ndarray,
    height: int,
    text_size: float = 12.5,
    reach: float | None = None,
) -> go.Figure:
    """Draw a matrix, rows from the top: each cell's text, and its change as colour.

    Args:
        change: what is coloured; NaN is no colour.
        text: of each cell.
        x, y: names of columns and rows.
        title: of the figure.
        hover: plotly's template of the box under the pointer, which may use `customdata`.
        customdata: [rows, columns, values].
        height: pixels.
        text_size: pixels.
        reach: the change of the strongest colours, in both directions; 1.6 times the largest by default, so that text
            stays readable.
    """
    reach = 1.6 * (float(np.nanmax(np.abs(change), initial=0.0)) or 1.0) if reach is None else reach
    heat = go.Heatmap(
        z=change,
        x=list(x),
        y=list(y),
        text=text,
        texttemplate="%{text}",
        textfont={"size": text_size},
        customdata=customdata,
        zmin=-reach,
        zmax=reach,
        xgap=3,
        ygap=3,
        colorscale=SCALE,
        showscale=False,
        hoverongaps=False,
        hovertemplate=hover,
    )
    figure = finish(go.Figure(heat), title, height=height, legend=False)
    figure.update_traces(textfont_color=INK, hoverlabel={"bgcolor": PAPER})
    figure.update_xaxes(side="top", showline=False, ticks="", tickfont={"color": INK}, title_text="")
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"color": INK})
    return figure
