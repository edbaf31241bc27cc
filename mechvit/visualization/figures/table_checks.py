"""Checks of tables before drawing, and panels and traces shared by several figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvit.visualization.style import colour, fade, family_of, in_order, panel_title, title_of


def require(frame: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Raise a ValueError unless the frame has rows and these columns."""
    lacking = [column for column in columns if column not in frame.columns]
    if lacking:
        raise ValueError(
            f"table {name} must have the columns {', '.join(columns)}; it lacks {', '.join(lacking)} "
            f"(it has {', '.join(map(str, frame.columns))}): write it again with the analysis that makes it"
        )
    if frame.empty:
        raise ValueError(f"table {name} must have at least one row; it has none: run the analysis that fills it")


def pick(frame: pd.DataFrame, **equal: object) -> pd.DataFrame:
    """Return the rows whose columns equal these values."""
    for column, value in equal.items():
        frame = frame[frame[column] == value]
    return frame


def panels(
    titles: Sequence[str], rows: int = 1, *, columns: int | None = None, spacing: float = 0.05, **options: Any
) -> go.Figure:
    """Return an empty figure of panels that share the y axis.

    Args:
        titles: titles of the panels of the first row, or, with `columns`, of all panels, row by row.
        rows: number of rows.
        columns: number of columns; that of the titles when None.
        spacing: horizontal space between panels, as a share of the width.
        options: further ones of plotly's `make_subplots`.
    """
    bold = [panel_title(title) for title in titles]
    options = {"shared_yaxes": True, "horizontal_spacing": spacing, "subplot_titles": bold, **options}
    return make_subplots(rows, columns or len(titles), **options)


def images_of(corruption: str) -> str:
    """Return a panel's title for the images of one condition."""
    return "Clean images" if corruption == "clean" else f"Images with {title_of(corruption)}"


def error_bars(value: pd.Series, low: pd.Series, high: pd.Series, *, tint: str | None = None) -> dict[str, object]:
    """Return plotly's asymmetric error bars for an interval's ends."""
    bars = {"type": "data", "symmetric": False, "thickness": 1.6, "width": 0}
    bars |= {"array": (high - value).to_numpy(), "arrayminus": (value - low).to_numpy()}
    return bars | ({"color": tint} if tint else {})


def dot(model: str, *, size: float = 9) -> dict[str, object]:
    """Return the marker of a model: its colour, hollow for the base."""
    if model == "base":
        return {"color": colour(model), "size": size, "symbol": "circle-open", "line": {"width": 2}}
    return {"color": colour(model), "size": size, "symbol": "circle"}


def band(
    x: np.ndarray, low: pd.Series, high: pd.Series, tint: str, group: str, *, alpha: float = 0.13, shape: str = "linear"
) -> list[go.Scatter]:
    """Return the traces of an interval's band: two invisible lines, filled between."""
    edge = {"x": x, "mode": "lines", "line": {"width": 0, "shape": shape}, "hoverinfo": "skip", "showlegend": False}
    upper = go.Scatter(**edge, y=high.to_numpy(), legendgroup=group)
    lower = go.Scatter(**edge, y=low.to_numpy(), legendgroup=group, fill="tonexty", fillcolor=fade(tint, alpha))
    return [upper, lower]


def layer_lines(
    frame: pd.DataFrame, value: str, *, own: str, legend: bool, unit: str, digits: int = 3
) -> list[go.Scatter]:
    """Return a line with band per model over `layer`; models of families other than `own` thin, without band."""
    traces: list[go.Scatter] = []
    for model, group in frame.groupby("model", sort=False):
        group, tint = group.sort_values("layer"), colour(str(model))
        near = model == "base" or family_of(str(model)) == own
        x = group["layer"].to_numpy()
        if near:
            traces += band(x, group["low"], group["high"], tint, str(model))
        line = {"color": tint, "width": 2.4 if near else 1.3, "dash": "solid" if near else "dot"}
        hover = f"<b>{title_of(str(model))}</b> layer %{{x}}: %{{y:.{digits}f}}{unit}"
        hover += f" [%{{customdata[0]:.{digits}f}}, %{{customdata[1]:.{digits}f}}]<extra></extra>"
        marks = {**dot(str(model), size=6)} if near else {"color": tint, "size": 3.5}
        trace = go.Scatter(
            x=x,
            y=group[value].to_numpy(),
            customdata=group[["low", "high"]].to_numpy(),
            mode="lines+markers",
            line=line,
            marker=marks,
            name=title_of(str(model), short=True),
            legendgroup=model,
            showlegend=legend,
            hovertemplate=hover,
        )
        traces.append(trace)
    return traces


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the models' reading order."""
    order = {key: place for place, key in enumerate(in_order(frame["model"]))}
    return frame.sort_values(["model", "layer"], key=lambda c: c.map(order) if c.name == "model" else c)


def layer_step(layers: pd.Series | np.ndarray) -> int:
    """Return the spacing of layer ticks, for about 13 ticks at most."""
    return 1 + int(np.max(layers)) // 13


def axis_range(values: pd.Series, *always: float, room: float) -> list[float]:
    """Return an axis range with these numbers, and a share `room` of its length beyond either end.

    Intervals may extend beyond it, as those with a tiny denominator do.
    """
    low, high = np.nanmin([*values, *always]), np.nanmax([*values, *always])
    return [low - room * (high - low), high + room * (high - low)]
