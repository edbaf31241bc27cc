"""Differences between two models of any names: by group, by layer, and by attention head; colours by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvit.arguments import checked
from mechvit.visualization.style import (
    BASE,
    GRID,
    INK,
    MUTED,
    PAPER,
    RAMPS,
    escaped,
    fade,
    finish,
    panel_title,
    zero_line,
)

from .table_checks import band, error_bars, layer_step, pick, require

VALUE = ("value", "low", "high")
GROUPED = ("model", "panel", "group", *VALUE)
LAYERED = ("model", "panel", "condition", "layer", *VALUE)
HEADS = ("model", "panel", "layer", "head", "value")
FLIP_TITLES = {
    "negative_flips": ("right → wrong", RAMPS["gaussian_noise"][0][1]),
    "positive_flips": ("wrong → right", RAMPS["gaussian_blur"][0][1]),
    "wrong_to_wrong": ("wrong → other wrong", MUTED),
    "prediction_flips": ("other prediction", MUTED),
}
"""Title and colour of each kind of flip."""
_BLUE, _ORANGE = (RAMPS[family][0] for family in ("gaussian_blur", "gaussian_noise"))
DIVERGING = [[0, _ORANGE[2]], [0.25, _ORANGE[1]], [0.5, GRID], [0.75, _BLUE[1]], [1, _BLUE[2]]]
NULL_ALPHA = 0.22
"""Opacity of the grey within which one more null model would fall."""
GAP = 0.09
"""Space between heat maps, as a share of the figure, which holds the colour bar of the left one."""
RISING = [[0, GRID], [0.35, _BLUE[0]], [0.7, _BLUE[1]], [1, _BLUE[2]]]


@checked
def grouped_dots(
    table: pd.DataFrame,
    title: str,
    axes: Mapping[str, str],
    *,
    base: str = "",
    zero: bool = False,
    order: Sequence[str] = (),
) -> go.Figure:
    """Draw values with intervals, one row per group, one panel per quantity, one colour per model.

    Args:
        table: model, panel (a key of `axes`), group, value, low, high; drawn in its order. Limits of null models,
            null_low and null_high, are grey bars.
        title: title of the figure.
        axes: panel -> the axis's text, with the unit.
        base: name of the base, drawn in grey; empty if the table holds tuned models alone.
        zero: whether to draw a line at zero.
        order: models whose places give the colours, in several figures the same; those of the table when empty.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(table, GROUPED, title)
    models, groups = (list(dict.fromkeys(table[name])) for name in ("model", "group"))
    tints = tints_of(list(dict.fromkeys([*order, *models])), base)
    panels = [panel for panel in axes if panel in set(table["panel"])]
    figure = make_subplots(1, len(panels), shared_yaxes=True, horizontal_spacing=0.04)
    offsets = np.linspace(-0.22, 0.22, len(models)) if len(models) > 1 else [0.0]
    for col, panel in enumerate(panels, start=1):
        for trace in _null_bars(pick(table, panel=panel), groups):
            figure.add_trace(trace, row=1, col=col)
        for model, offset in zip(models, offsets, strict=True):
            part = pick(table, panel=panel, model=model)
            figure.add_trace(
                go.Scatter(
                    x=part["value"].to_numpy(),
                    y=[groups.index(group) + offset for group in part["group"]],
                    error_x=error_bars(part["value"], part["low"], part["high"]),
                    customdata=part[["group", "low", "high"]].to_numpy(),
                    mode="markers",
                    marker=_marker(tints[model], hollow=model == base),
                    name=escaped(model),
                    legendgroup=model,
                    showlegend=col == 1,
                    hovertemplate=f"<b>{escaped(model)}</b>, %{{customdata[0]}}: %{{x:.4g}} [%{{customdata[1]:.4g}}, "
                    "%{customdata[2]:.4g}]<extra></extra>",
                ),
                row=1,
                col=col,
            )
        figure.update_xaxes(title_text=axes[panel], showgrid=True, row=1, col=col)
        if zero:
            zero_line(figure, axis="x", row=1, col=col)
    names = [escaped(group, 28) for group in groups]
    figure.update_yaxes(tickvals=list(range(len(groups))), ticktext=names, range=[len(groups) - 0.4, -0.6])
    finish(figure, title, height=190 + 34 * len(groups))
    return _laid_out(figure, names)


@checked
def flip_bars(table: pd.DataFrame, title: str = "Images with another prediction") -> go.Figure:
    """Draw the share of images whose prediction differs, by kind of flip: one bar per model and condition.

    Args:
        table: model, group (a condition), quantity (a key of `FLIP_TITLES`), value, low, high.
        title: title of the figure.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(table, ("model", "group", "quantity", *VALUE), "flips")
    bars = list(dict.fromkeys(zip(table["model"], table["group"], strict=True)))
    several = table["model"].nunique() > 1
    names = [escaped(f"{model}, {group}" if several else group, 48) for model, group in bars]
    figure = go.Figure()
    for quantity, (says, tint) in FLIP_TITLES.items():
        part = pick(table, quantity=quantity)
        if part.empty:
            continue
        figure.add_trace(
            go.Bar(
                x=100 * part["value"],
                y=[bars.index(bar) for bar in zip(part["model"], part["group"], strict=True)],
                customdata=100 * part[["low", "high"]].to_numpy(),
                orientation="h",
                marker={"color": tint},
                name=says,
                hovertemplate=f"{says}: %{{x:.1f}}% [%{{customdata[0]:.1f}}, %{{customdata[1]:.1f}}]<extra></extra>",
            )
        )
    finish(figure, title, height=170 + 40 * len(bars))
    figure.update_yaxes(tickvals=list(range(len(bars))), ticktext=names, range=[len(bars) - 0.4, -0.6], showgrid=False)
    figure.update_xaxes(title_text="% of images", showgrid=True, rangemode="tozero")
    return _laid_out(figure, names).update_layout(barmode="stack")


def _laid_out(figure: go.Figure, names: Sequence[str]) -> go.Figure:
    """Make room for the names of rows, and put the legend just above the panels, however many rows there are."""
    top = 84
    figure.update_layout(margin={"l": 60 + 6 * max(map(len, names)), "t": top})
    return figure.update_layout(legend_y=1 + 14 / (figure.layout.height - top - figure.layout.margin.b))


@checked
def layer_curves(
    table: pd.DataFrame,
    title: str,
    axes: Mapping[str, str],
    *,
    base: str = "",
    zero: bool = False,
    across: str = "layer",
    order: Sequence[str] = (),
) -> go.Figure:
    """Draw quantities by layer with bands: one row per quantity, one column per condition, one colour per model.

    Args:
        table: model, panel (a key of `axes`), condition, layer, value, low, high. Limits of null models, null_low and
            null_high, are a grey band.
        title: title of the figure.
        axes: panel -> the axis's text, with the unit.
        base: name of the base, drawn in grey; empty if the table holds tuned models alone.
        zero: whether to draw a line at zero.
        across: text of the axis of layers.
        order: models whose places give the colours, in several figures the same; those of the table when empty.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(table, LAYERED, title)
    models, conditions = (list(dict.fromkeys(table[name])) for name in ("model", "condition"))
    tints = tints_of(list(dict.fromkeys([*order, *models])), base)
    panels = [panel for panel in axes if panel in set(table["panel"])]
    figure = make_subplots(
        len(panels),
        len(conditions),
        shared_xaxes=True,
        shared_yaxes="rows",
        horizontal_spacing=0.04,
        vertical_spacing=0.1 / len(panels),
        subplot_titles=[panel_title(escaped(condition)) for condition in conditions],
    )
    for row, panel in enumerate(panels, start=1):
        for col, condition in enumerate(conditions, start=1):
            for trace in _null_band(pick(table, panel=panel, condition=condition)):
                figure.add_trace(trace, row=row, col=col)
            for model in models:
                part = pick(table, panel=panel, condition=condition, model=model).sort_values("layer")
                for trace in _line(part, model, tints[model], legend=row == col == 1):
                    figure.add_trace(trace, row=row, col=col)
            if zero:
                zero_line(figure, row=row, col=col)
        figure.update_yaxes(title_text=axes[panel], row=row, col=1)
    figure.update_xaxes(dtick=layer_step(table["layer"]))
    figure.update_xaxes(title_text=across, row=len(panels))
    finish(figure, title, height=150 + 230 * len(panels))
    return figure.update_layout(margin={"t": 110}, legend_y=1 + 0.09 / len(panels))


@checked
def head_maps(table: pd.DataFrame, title: str, axes: Mapping[str, str]) -> go.Figure:
    """Draw one value per layer and head as heat maps: one column per quantity, one row per tuned model.

    Quantities with negative values are coloured about zero, others from zero on; each quantity has its own scale.

    Args:
        table: model, panel (a key of `axes`), layer, head, value.
        title: title of the figure.
        axes: panel -> the text of the colour bar, with the unit.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(table, HEADS, title)
    models, panels = list(dict.fromkeys(table["model"])), [panel for panel in axes if panel in set(table["panel"])]
    titles = [
        axes[panel] + (f"<br>{escaped(model)}" if len(models) > 1 else "") for model in models for panel in panels
    ]
    figure = make_subplots(len(models), len(panels), shared_yaxes=True, horizontal_spacing=GAP, subplot_titles=titles)
    width = (1 - GAP * (len(panels) - 1)) / len(panels)
    scales = {}
    for col, panel in enumerate(panels, start=1):
        values = pick(table, panel=panel)["value"]
        most = float(values.abs().max()) or 1.0
        signed = bool((values < 0).any())
        edge = col * width + (col - 1) * GAP
        bar = {
            "thickness": 8,
            "outlinewidth": 0,
            "x": edge + 0.005,
            "xanchor": "left",
            "len": 0.95,
            "tickfont_size": 10,
        }
        scales["coloraxis" + str(col)] = {
            "colorscale": DIVERGING if signed else RISING,
            "cmin": -most if signed else 0,
            "cmax": most,
            "colorbar": bar,
        }
        for row, model in enumerate(models, start=1):
            wide = pick(table, panel=panel, model=model).pivot(index="head", columns="layer", values="value")
            heat = go.Heatmap(
                z=wide.to_numpy(),
                x=wide.columns.to_numpy(),
                y=wide.index.to_numpy(),
                coloraxis=f"coloraxis{col}",
                hovertemplate="layer %{x}, head %{y}: %{z:.4f}<extra></extra>",
            )
            figure.add_trace(heat, row=row, col=col)
    finish(figure, title, height=130 + 230 * len(models), legend=False)
    figure.update_traces(hoverlabel={"bgcolor": PAPER, "font": {"color": INK}})
    figure.update_xaxes(dtick=layer_step(table["layer"]))
    figure.update_xaxes(title_text="layer (block)", row=len(models))
    figure.update_yaxes(showgrid=False, autorange="reversed", dtick=layer_step(table["head"]))
    figure.update_yaxes(title_text="head", col=1)
    return figure.update_layout(**scales, margin={"r": 70, "t": 100})


def tints_of(models: Sequence[str], base: str = "") -> dict[str, str]:
    """Return a colour for each model by its position: grey for the base, a hue for each of the others in turn."""
    hues, others = [light[1] for light, _ in RAMPS.values()], [model for model in models if model != base]
    return {base: BASE} | {model: hues[place % len(hues)] for place, model in enumerate(others)}


def _marker(tint: str, *, hollow: bool) -> dict[str, object]:
    return {"color": tint, "size": 9, "symbol": "circle-open" if hollow else "circle", "line": {"width": 2}}


def _line(part: pd.DataFrame, model: str, tint: str, *, legend: bool) -> list[go.Scatter]:
    """Return the traces of a line and its interval's band."""
    if part.empty:
        return []
    x = part["layer"].to_numpy()
    line = go.Scatter(
        x=x,
        y=part["value"].to_numpy(),
        customdata=part[["low", "high"]].to_numpy(),
        mode="lines+markers",
        line={"color": tint, "width": 2.2},
        marker={"color": tint, "size": 5},
        name=escaped(model),
        legendgroup=model,
        showlegend=legend,
        hovertemplate=f"<b>{escaped(model)}</b>, layer %{{x}}: %{{y:.4g}} [%{{customdata[0]:.4g}}, "
        "%{customdata[1]:.4g}]<extra></extra>",
    )
    return [*band(x, part["low"], part["high"], tint, model), line]


def _limits_of(part: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return the limits of null models in a panel, one row each layer or group; none where a table has none."""
    if not {"null_low", "null_high"} <= set(part.columns):
        return pd.DataFrame({by: [], "null_low": [], "null_high": []})
    return part.dropna(subset=["null_low", "null_high"]).drop_duplicates(by)


def _null_band(part: pd.DataFrame) -> list[go.Scatter]:
    """Return the grey band within which one more null model would fall, over the layers."""
    limits = _limits_of(part, "layer").sort_values("layer")
    if limits.empty:
        return []
    return band(limits["layer"].to_numpy(), limits["null_low"], limits["null_high"], MUTED, "nulls", alpha=NULL_ALPHA)


def _null_bars(part: pd.DataFrame, groups: Sequence[str]) -> list[go.Scatter]:
    """Return the grey bars within which one more null model would fall, one for each group."""
    edge = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, "legendgroup": "nulls"}
    line = {"color": fade(MUTED, NULL_ALPHA), "width": 16}
    return [
        go.Scatter(x=[row.null_low, row.null_high], y=[groups.index(row.group)] * 2, line=line, **edge)
        for row in _limits_of(part, "group").itertuples()
    ]
