"""Similarity of two models' layers, readings of the logit and tuned lenses, and prediction depth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import (
    GRID,
    INK,
    PAPER,
    RAMPS,
    colour,
    family_of,
    finish,
    in_order,
    title_of,
    tuned_title,
    zero_line,
)

from .table_checks import band, dot, error_bars, images_of, layer_lines, layer_step, ordered, panels, pick, require

CKA_COLUMNS = ("model_a", "corruption_a", "model_b", "corruption_b", "layer_a", "layer_b", "cka", "low", "high")
_BLUE = RAMPS["gaussian_blur"][0]
COLOUR_SCALE = [[0, GRID], [0.5, _BLUE[0]], [0.8, _BLUE[1]], [1, _BLUE[2]]]
"""Colour scale from no similarity to equality up to rotation."""
LENSES = {"logit": "dot", "tuned": "solid"}
LENS_AXES = {
    "probability": "mean probability<br>of the correct class",
    "divergence": "KL(final ‖ lens)<br>(nats, 0 = as the model)",
}
SUBSET_MARKERS = {"all": ("all images", "circle"), "both_correct": ("both right", "diamond-open")}


@checked
def model_similarity(cka: pd.DataFrame) -> go.Figure:
    """Draw CKA of every tuned model with the base, same layer and images: one panel per condition.

    Args:
        cka: `CKA.to_frame` with the views' names: model_a, corruption_a, model_b, corruption_b.

    Raises:
        ValueError: a column is missing or no row compares two models on the same images.
    """
    require(cka, CKA_COLUMNS, "representation_similarity")
    own = _same_layers(cka[(cka["model_a"] != cka["model_b"]) & (cka["corruption_a"] == cka["corruption_b"])])
    own = own.assign(model=own["model_b"], corruption=own["corruption_b"])
    figure = _by_layer(own, "Similarity of base and tuned models by layer")
    return figure.update_yaxes(title_text="linear CKA of tuned and base (1 = same)", row=1, col=1)


@checked
def corruption_similarity(cka: pd.DataFrame) -> go.Figure:
    """Draw CKA between each model's clean and corrupted images, same layer: one panel per corruption.

    Args:
        cka: as in `model_similarity`.

    Raises:
        ValueError: a column is missing or no row compares two conditions in one model.
    """
    require(cka, CKA_COLUMNS, "representation_similarity")
    own = _same_layers(cka[(cka["model_a"] == cka["model_b"]) & (cka["corruption_a"] != cka["corruption_b"])])
    own = own.assign(model=own["model_b"], corruption=own["corruption_b"])
    figure = _by_layer(own, "Similarity of each model's clean and corrupted images by layer")
    return figure.update_yaxes(title_text="linear CKA of clean and corrupted (1 = same)", row=1, col=1)


def _same_layers(cka: pd.DataFrame) -> pd.DataFrame:
    own = cka[cka["layer_a"] == cka["layer_b"]]
    require(own, CKA_COLUMNS, "representation_similarity (pairs of this kind)")
    return own.assign(layer=own["layer_b"])


def _by_layer(own: pd.DataFrame, title: str) -> go.Figure:
    conditions = in_order(own["corruption"])
    figure = panels([images_of(key) for key in conditions])
    shown: set[str] = set()
    for col, corruption in enumerate(conditions, start=1):
        part = ordered(pick(own, corruption=corruption))
        for model in dict.fromkeys(part["model"]):
            own_part = pick(part, model=model)
            lines = layer_lines(own_part, "cka", own=family_of(model), legend=model not in shown, unit="")
            shown.add(model)
            figure.add_traces(lines, rows=1, cols=col)
    figure.update_xaxes(title_text="layer (0 = embedding)", dtick=layer_step(own["layer"]))
    figure.update_yaxes(range=[min(0.0, float(own["low"].min())), 1.02])
    return finish(figure, title, height=400)


@checked
def similarity_matrix(cka: pd.DataFrame) -> go.Figure:
    """Draw CKA of every layer of one view with every layer of another: one panel per pair of views.

    Args:
        cka: as in `model_similarity`, with every pair of layers.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(cka, CKA_COLUMNS, "representation_similarity")
    keys = ["model_a", "corruption_a", "model_b", "corruption_b"]
    pairs = list(cka.groupby(keys, sort=False))
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    titles = [f"{_view(b, d)} (down)<br>and {_view(a, c)} (across)" for (a, c, b, d), _ in pairs]
    apart = min(0.16, 0.3 / rows)
    figure = panels(titles, rows, columns=columns, spacing=0.08, vertical_spacing=apart, shared_yaxes=False)
    for place, ((a, c, b, d), part) in enumerate(pairs):
        wide = {name: part.pivot(index="layer_b", columns="layer_a", values=name) for name in ("cka", "low", "high")}
        heat = go.Heatmap(
            z=wide["cka"].to_numpy(),
            x=wide["cka"].columns.to_numpy(),
            y=wide["cka"].index.to_numpy(),
            customdata=np.stack([wide["low"], wide["high"]], axis=-1),
            coloraxis="coloraxis",
            name=f"{_view(a, c)} and {_view(b, d)}",
            hovertemplate=f"{_view(a, c)}, layer %{{x}}; {_view(b, d)}, layer %{{y}}: CKA %{{z:.3f}} "
            "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
        )
        figure.add_trace(heat, row=place // columns + 1, col=place % columns + 1)
    finish(figure, "Similarity of every two layers", height=120 + 330 * rows, legend=False)
    figure.update_traces(hoverlabel={"bgcolor": PAPER, "font": {"color": INK}})
    figure.update_xaxes(title_text="layer", constrain="domain", dtick=layer_step(cka["layer_a"]))
    figure.update_yaxes(title_text="layer", showgrid=False, constrain="domain", dtick=layer_step(cka["layer_b"]))
    bar = {"title": {"text": "linear CKA", "font": {"size": 12.5}}, "thickness": 12, "outlinewidth": 0}
    lowest = min(0.0, float(cka["cka"].min()))
    return figure.update_layout(
        coloraxis={"colorscale": COLOUR_SCALE, "cmin": lowest, "cmax": 1, "colorbar": bar}, margin={"r": 90, "t": 120}
    )


def _view(model: str, corruption: str) -> str:
    return f"{title_of(model, short=True)}: {title_of(corruption).lower()}"


@checked
def lens_comparison(summary: pd.DataFrame) -> go.Figure:
    """Draw the readings of the tuned lens (solid) and the logit lens (dotted) by layer: one column per condition.

    Args:
        summary: `lens_comparison_summary` (model, corruption, lens, layer, quantity, value, low, high).

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    columns = ("model", "corruption", "lens", "layer", "quantity", "value", "low", "high")
    require(summary, columns, "lens_comparison")
    conditions, models = in_order(summary["corruption"]), in_order(summary["model"])
    titles = [images_of(key) for key in conditions]
    figure = panels(titles, len(LENS_AXES), shared_xaxes=True, shared_yaxes="rows", vertical_spacing=0.08)
    for row, quantity in enumerate(LENS_AXES, start=1):
        for col, corruption in enumerate(conditions, start=1):
            for model in models:
                for lens, dash in LENSES.items():
                    part = pick(summary, model=model, corruption=corruption, lens=lens, quantity=quantity)
                    lines = _lens_line(part.sort_values("layer"), model, lens, dash, legend=row == col == 1)
                    figure.add_traces(lines, rows=row, cols=col)
        figure.update_yaxes(title_text=LENS_AXES[quantity], rangemode="tozero", row=row, col=1)
    figure.update_xaxes(dtick=layer_step(summary["layer"]))
    figure.update_xaxes(title_text="layer (0 = embedding)", row=len(LENS_AXES))
    finish(figure, "Logit lens and tuned lens by layer", height=640)
    return figure.update_layout(margin={"t": 120}, legend_y=1.07)


def _lens_line(part: pd.DataFrame, model: str, lens: str, dash: str, *, legend: bool) -> list[go.Scatter]:
    """Return the traces of a line and its interval's band."""
    if part.empty:
        return []
    tint, group, x = colour(model), f"{model}:{lens}", part["layer"].to_numpy()
    line = go.Scatter(
        x=x,
        y=part["value"].to_numpy(),
        customdata=part[["low", "high"]].to_numpy(),
        mode="lines+markers",
        line={"color": tint, "width": 2.2, "dash": dash},
        marker=dot(model, size=5),
        name=f"{title_of(model, short=True)}, {lens} lens",
        legendgroup=group,
        showlegend=legend,
        hovertemplate=f"<b>{title_of(model)}</b>, {lens} lens, layer %{{x}}: %{{y:.3f}} "
        "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
    )
    return [*band(x, part["low"], part["high"], tint, group), line]


@checked
def depth_change(summary: pd.DataFrame) -> go.Figure:
    """Draw the mean change of prediction depth, tuned minus base on the same images (negative: earlier), per lens.

    Args:
        summary: `depth_summary`.

    Raises:
        ValueError: a column is missing or there is no tuned model.
    """
    columns = ("model", "corruption", "lens", "subset", "n", "change", "change_low", "change_high")
    require(summary, columns, "prediction_depth_summary")
    own = summary[summary["model"] != "base"]
    require(own, columns, "prediction_depth_summary (tuned models)")
    lenses = [lens for lens in LENSES if lens in set(own["lens"])]
    figure = panels([f"By the {lens} lens" for lens in lenses])
    there = set(zip(own["model"], own["corruption"], strict=True))
    rows = [(m, c) for m in in_order(own["model"]) for c in in_order(own["corruption"]) if (m, c) in there]
    names = [f"{tuned_title(m)}, on {title_of(c, short=True).lower()}" for m, c in rows]
    for col, lens in enumerate(lenses, start=1):
        for (subset, (says, symbol)), offset in zip(SUBSET_MARKERS.items(), (-0.13, 0.13), strict=True):
            for model in in_order(own["model"]):
                part = pick(own, model=model, lens=lens, subset=subset)
                trace = go.Scatter(
                    x=part["change"].to_numpy(),
                    y=[rows.index((model, c)) + offset for c in part["corruption"]],
                    error_x=error_bars(part["change"], part["change_low"], part["change_high"]),
                    customdata=part[["change_low", "change_high", "n"]].to_numpy(),
                    mode="markers",
                    marker={"color": colour(model), "size": 9, "symbol": symbol},
                    name=f"{tuned_title(model)}, {says}",
                    legendgroup=f"{model}:{subset}",
                    showlegend=col == 1,
                    hovertemplate=f"<b>{title_of(model)}</b>, {says}: %{{x:+.2f}} layers [%{{customdata[0]:+.2f}}, "
                    "%{customdata[1]:+.2f}], %{customdata[2]} images<extra></extra>",
                )
                figure.add_trace(trace, row=1, col=col)
    zero_line(figure, axis="x")
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=names, range=[len(rows) - 0.5, -0.5])
    figure.update_xaxes(title_text="change of mean prediction depth, tuned − base<br>(layers; negative = earlier)")
    finish(figure, "Change of prediction depth", height=210 + 46 * len(rows))
    figure.update_xaxes(showgrid=True)
    return figure.update_layout(margin={"l": 190, "b": 72})
