"""A matrix of numbers coloured by their change over the base, shared by the performance and transfer figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from mechvit.visualization.style import GRID, INK, MUTED, PAPER, RAMPS, finish

_LOW, _HIGH = RAMPS["gaussian_noise"][0], RAMPS["gaussian_blur"][0]
COLOUR_SCALE = [[0, _LOW[1]], [0.25, _LOW[0]], [0.5, GRID], [0.75, _HIGH[0]], [1, _HIGH[1]]]
"""Colour scale: orange below zero, grey at zero, blue above, distinguishable by colour-blind readers."""


def sure(low: Float[np.ndarray, "*shape"], high: Float[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """Return where an interval excludes zero."""
    return (low > 0) | (high < 0)


def bold(texts: Sequence[Sequence[str]], where: Bool[np.ndarray, "rows columns"]) -> list[list[str]]:
    """Return the texts of a matrix, in bold where `where` is true."""
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
    colours: str,
    hover: str,
    customdata: np.ndarray,
    height: int,
    text_size: float = 12.5,
    reach: float | None = None,
) -> go.Figure:
    """Draw a matrix, training conditions down, test conditions across: text in each cell, its change as colour.

    Args:
        change: numbers shown as colours; NaN is left without colour.
        text: text of each cell.
        x, y: names of columns and rows.
        title: title of the figure.
        colours: title of the colour bar: the quantity, its unit and the meaning of its sign.
        hover: plotly's hover template, which may use `customdata`.
        customdata: values for the hover template, [rows, columns, values].
        height: height in pixels.
        text_size: font size in pixels.
        reach: absolute change at the ends of the colour scale; 1.6 times the largest change by default, so that text
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
        colorscale=COLOUR_SCALE,
        colorbar=colour_bar(colours),
        hoverongaps=False,
        hovertemplate=hover,
    )
    figure = finish(go.Figure(heat), title, height=height, legend=False)
    figure.update_traces(textfont_color=INK, hoverlabel={"bgcolor": PAPER})
    figure.update_xaxes(side="top", showline=False, ticks="", tickfont={"color": INK})
    figure.update_xaxes(title={"text": "tested on", "standoff": 8}, automargin=True)
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"color": INK}, title_text="trained on")
    return figure


def colour_bar(title: str) -> dict[str, Any]:
    """Return a thin horizontal colour bar at the foot of the figure, with its title below."""
    return {
        "orientation": "h",
        "thickness": 9,
        "len": 1,
        "x": 0,
        "xanchor": "left",
        "xpad": 0,
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "outlinewidth": 0,
        "nticks": 5,
        "tickfont": {"size": 11, "color": MUTED},
        "title": {"text": title, "side": "bottom", "font": {"size": 12, "color": MUTED}},
    }
