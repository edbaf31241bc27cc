"""Forest plot of every claim's measurements with their intervals, one panel per unit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvit.arguments import checked
from mechvit.visualization.style import BASE, GRID, INK, MUTED, RAMPS, escaped, finish

from .table_checks import error_bars, pick, require

COLUMNS = ("id", "claim", "part", "value", "low", "high", "unit", "decides", "kind", "threshold", "verdict")
VERDICT_STYLES = {
    "replicates": (RAMPS["other"][0][1], "circle"),
    "does not replicate": (RAMPS["gaussian_noise"][0][1], "diamond"),
    "inconclusive": (BASE, "circle-open"),
}
"""Colour and symbol of each verdict."""
AXES = {
    "effect": "{unit} (above 0 = as claimed; dotted: the smallest effect that counts)",
    "no effect": "{unit} (within the shaded margin around 0 = as claimed)",
    "other": "{unit} (judged by its own rule)",
}
ROW, GAP = 22, 76
"""Pixels per claim, and between two panels."""


@checked
def claims_forest(effects: pd.DataFrame) -> go.Figure:
    """Draw each claim's deciding measurement, coloured by verdict, and its other measurements, thin, with intervals.

    Args:
        effects: `claims_table.claim_effects`, one row per measurement; those without a number are left out.

    Raises:
        ValueError: a column is missing, or nothing was measured.
    """
    require(effects, COLUMNS, "claims")
    effects = effects.dropna(subset=["value", "low", "high"])
    require(effects, COLUMNS, "claims (measured ones)")
    panels = list(effects[["unit", "kind"]].drop_duplicates().itertuples(index=False, name=None))
    parts = [pick(effects, unit=unit, kind=kind) for unit, kind in panels]
    counts = [part["id"].nunique() for part in parts]
    height = sum(counts) * ROW + len(parts) * GAP + 40
    figure = make_subplots(
        len(parts), 1, row_heights=counts, vertical_spacing=GAP / (height - 96) if len(parts) > 1 else 0.0
    )
    for row, (part, (unit, kind)) in enumerate(zip(parts, panels, strict=True), start=1):
        names = list(dict.fromkeys(part["id"]))
        _panel(figure, part, names, row)
        _threshold(figure, part, row)
        figure.update_xaxes(title={"text": AXES[kind].format(unit=escaped(unit)), "standoff": 6}, row=row)
        figure.update_yaxes(
            tickvals=list(range(len(names))),
            ticktext=[escaped(_label(name)) for name in names],
            range=[len(names) - 0.4, -0.6],
            row=row,
        )
    _legend(figure)
    finish(figure, "Every claim’s measurements", height=height)
    figure.update_xaxes(showgrid=True)
    figure.update_yaxes(showgrid=False, tickfont_color=INK)
    return figure.update_layout(margin={"t": 72}, legend={"yref": "container", "y": 1 - 36 / height, "yanchor": "top"})


def _label(name: str) -> str:
    """Return the label of a claim's id: `Better gaussian blur` for `better_gaussian_blur`."""
    words = name.replace("_", " ").replace("sae ", "SAE ")
    return words[:1].upper() + words[1:]


def _panel(figure: go.Figure, part: pd.DataFrame, names: list[str], row: int) -> None:
    """Draw the other measurements thin and small, spread within their claim's row, and the deciding ones on top."""
    place = part["id"].map({name: at for at, name in enumerate(names)}).astype(float)
    others = part[~part["decides"] & (part["kind"] != "other")]  # these may have several units
    if len(others):
        turn = others.groupby("id").cumcount()
        many = others.groupby("id")["id"].transform("size")
        offset = 0.62 * ((turn + 0.5) / many - 0.5)
        figure.add_trace(_trace(others, place[others.index] + offset, MUTED, "circle", 3.5, 0.8), row=row, col=1)
    for verdict, (tint, symbol) in VERDICT_STYLES.items():
        own = part[part["decides"] & (part["verdict"] == verdict)]
        if len(own):
            figure.add_trace(_trace(own, place[own.index], tint, symbol, 9, 2.2), row=row, col=1)


def _trace(part: pd.DataFrame, y: pd.Series, tint: str, symbol: str, size: float, thickness: float) -> go.Scatter:
    said = [
        f"<b>{escaped(claim, 110)}</b><br>{escaped(name)}: {verdict}"
        for claim, name, verdict in zip(part["claim"], part["part"], part["verdict"], strict=True)
    ]
    return go.Scatter(
        x=part["value"].to_numpy(float),
        y=y.to_numpy(float),
        customdata=np.column_stack([said, part["low"], part["high"]]),
        error_x=error_bars(part["value"], part["low"], part["high"], tint=tint) | {"thickness": thickness},
        mode="markers",
        marker={"color": tint, "size": size, "symbol": symbol, "line": {"width": 2, "color": tint}}
        if symbol.endswith("open")
        else {"color": tint, "size": size, "symbol": symbol},
        showlegend=False,
        hovertemplate="%{customdata[0]}<br>%{x:.3g} [%{customdata[1]:.3g}, %{customdata[2]:.3g}]<extra></extra>",
    )


def _threshold(figure: go.Figure, part: pd.DataFrame, row: int) -> None:
    """Draw zero, and the margin or the smallest effect that counts."""
    kind, thresholds = part["kind"].iloc[0], part["threshold"].dropna().unique()
    if kind == "other":
        return
    figure.add_vline(0, line={"color": MUTED, "width": 1}, layer="below", row=row, col=1)
    for limit in thresholds:
        if kind == "effect":
            line = {"color": MUTED, "width": 1, "dash": "dot"}
            figure.add_vline(float(limit), line=line, layer="below", row=row, col=1)
        else:
            look = {"fillcolor": GRID, "opacity": 0.6, "line_width": 0, "layer": "below"}
            figure.add_vrect(-float(limit), float(limit), row=row, col=1, **look)


def _legend(figure: go.Figure) -> None:
    for verdict, (tint, symbol) in VERDICT_STYLES.items():
        marker = {"color": tint, "size": 9, "symbol": symbol}
        key = go.Scatter(x=[None], y=[None], mode="markers", name=verdict, marker=marker, showlegend=True)
        figure.add_trace(key, row=1, col=1)
