"""Patching: recovered shares by layer and component, their approximation, and heads' effects against attention."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechvit.arguments import checked
from mechvit.visualization.style import BASE, GRID, INK, MUTED, PAPER, RAMPS, finish, in_order, title_of, zero_line

from .change_map import bold, sure
from .table_checks import error_bars, layer_step, panels, pick, require

_BLUE, _ORANGE, _GREEN = (RAMPS[family][0] for family in ("gaussian_blur", "gaussian_noise", "other"))
COLOUR_SCALE = [[0, _ORANGE[2]], [0.25, _ORANGE[1]], [0.5, GRID], [0.75, _BLUE[1]], [1, _BLUE[2]]]
"""Colour scale from a change away from the giver, through none, to all of its lead."""
KIND_STYLES = {
    "resid": ("Residual stream", MUTED, "diamond"),
    "attn": ("Attention", _BLUE[1], "circle"),
    "mlp": ("MLP", _ORANGE[1], "square"),
    "head": ("Head", _GREEN[1], "circle-open"),
    "head_input": ("Input of the head", MUTED, "diamond-open"),
    "logits": ("Logits", MUTED, "x"),
}
"""Name, colour and symbol of each kind of component."""
TOKEN_TITLES = {"all": "all tokens", "cls": "CLS", "patches": "patches"}
OUTCOME_TITLES = {"logit_difference": "logit difference", "accuracy": "accuracy", "divergence": "KL from the giver"}
MODELS = {
    "receiver": ("Receiver", BASE),
    "giver": ("Giver", _BLUE[1]),
    "change": ("Giver minus receiver (Δ)", _GREEN[1]),
}
EFFECT_UNITS = {
    "logit_difference": "logits; positive helps the label",
    "divergence": "change of KL from the giver, nats; negative is nearer",
}
"""Unit and sign of an effect on each quantity."""
HEAD_AXES = {
    "distance": "attention distance (patches)",
    "cls_mass": "attention to CLS (fraction)",
    "entropy": "entropy (nats)",
    "entropy_difference": "entropy, corrupted - clean (nats)",
}


@checked
def patching_map(summary: pd.DataFrame, *, quantity: str = "logit_difference") -> go.Figure:
    """Draw the share of the giver's lead that each component recovers, by layer; bold where its interval excludes 0.

    Args:
        summary: `Patching.summary`, one row per component and quantity; for several models with a column `model`, which
            names the panels.
        quantity: "logit_difference", "accuracy" or "divergence".

    Raises:
        ValueError: a column is missing, or no row has this quantity.
    """
    columns = ("kind", "layer", "head", "tokens", "quantity", "value", "recovered", "recovered_low", "recovered_high")
    require(summary, columns, "patching_summary")
    summary = summary if "model" in summary else summary.assign(model="")
    summary = pick(summary, quantity=quantity)
    require(summary, columns, f"patching_summary of {quantity}")
    models = in_order(summary["model"])
    tokens = [key for key in TOKEN_TITLES if key in set(summary["tokens"])]
    shown = list(product(models, tokens))
    rows = sorted(
        set(zip(summary["kind"], summary["head"], strict=True)), key=lambda r: (list(KIND_STYLES).index(r[0]), r[1])
    )
    names = [KIND_STYLES[kind][0] + (f" {head}" if head >= 0 else "") for kind, head in rows]
    titles = [", ".join([*([title_of(model)] if model else []), TOKEN_TITLES[where]]) for model, where in shown]
    figure = panels([title[0].upper() + title[1:] for title in titles], spacing=0.03)
    for col, (model, where) in enumerate(shown, start=1):
        trace = _cells(pick(summary, model=model, tokens=where), rows, names)
        figure.add_trace(trace, row=1, col=col)
    height = 190 + 25 * len(rows)
    finish(figure, f"Recovered share of the giver's lead: {OUTCOME_TITLES[quantity]}", height=height, legend=False)
    figure.update_traces(hoverlabel={"bgcolor": PAPER, "font": {"color": INK}})
    figure.update_xaxes(
        title_text="layer (for the stream: the block that it enters)", dtick=layer_step(summary["layer"])
    )
    figure.update_yaxes(showgrid=False, autorange="reversed")
    says = {"text": "share of the lead<br>0 receiver, 1 giver<br> ", "font": {"size": 12}}
    bar = {"title": says, "thickness": 12, "outlinewidth": 0}
    axis = {"colorscale": COLOUR_SCALE, "cmin": -1, "cmax": 1, "colorbar": bar}
    return figure.update_layout(coloraxis=axis, margin={"l": 130, "r": 130, "t": 84})


def _cells(part: pd.DataFrame, rows: list[tuple[str, int]], names: list[str]) -> go.Heatmap:
    """Return one panel's heat map; absent components are left empty."""
    wide = part.pivot(index=["kind", "head"], columns="layer")
    found = {
        name: wide[name].reindex(rows).to_numpy(float)
        for name in ("recovered", "recovered_low", "recovered_high", "value")
    }
    shown = [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in found["recovered"]]
    return go.Heatmap(
        z=found["recovered"],
        x=wide["value"].columns.to_numpy(),
        y=names,
        text=bold(shown, sure(found["recovered_low"], found["recovered_high"])),
        texttemplate="%{text}",
        textfont={"size": 11},
        customdata=np.stack([found["recovered_low"], found["recovered_high"], found["value"]], -1),
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="<b>%{y}</b>, layer %{x}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}] of the lead; "
        "mean %{customdata[2]:.3f}<extra></extra>",
    )


@checked
def attribution_scatter(
    components: pd.DataFrame, overall: pd.DataFrame, *, quantity: str = "logit_difference"
) -> go.Figure:
    """Draw every component's approximate effect against its exact one, with intervals and the line of equality.

    Args:
        components, overall: the tables of an `AttributionError`.
        quantity: the one whose change is an effect, "logit_difference" or "divergence".

    Raises:
        ValueError: a column is missing or a table is empty.
    """
    sides = [f"{side}{end}" for side in ("exact", "approximate") for end in ("", "_low", "_high")]
    require(components, ("kind", "layer", "head", "tokens", *sides), "attribution_error")
    require(overall, ("kind", "quantity", "value", "low", "high"), "attribution_agreement")
    figure = go.Figure()
    reach = [float(components[sides].min(axis=None)), float(components[sides].max(axis=None))]
    line = {"color": MUTED, "width": 1, "dash": "dot"}
    figure.add_scatter(x=reach, y=reach, mode="lines", line=line, name="equal", hoverinfo="skip")
    for kind in [key for key in KIND_STYLES if key in set(components["kind"])]:
        name, tint, symbol = KIND_STYLES[kind]
        part = pick(components, kind=kind)
        heads = [f" head {head}" if head >= 0 else "" for head in part["head"]]
        labels = part["layer"].astype(str) + heads + ", " + part["tokens"].map(TOKEN_TITLES)
        bars = {side: error_bars(*(part[side + end] for end in ("", "_low", "_high"))) for side in sides[::3]}
        figure.add_scatter(
            x=part["exact"].to_numpy(),
            y=part["approximate"].to_numpy(),
            error_x=bars["exact"] | {"thickness": 0.8, "color": tint},
            error_y=bars["approximate"] | {"thickness": 0.8, "color": tint},
            customdata=np.column_stack([labels, *(part[side] for side in sides if side[-4:] in ("_low", "high"))]),
            mode="markers",
            marker={"color": tint, "symbol": symbol, "size": 9},
            name=name,
            hovertemplate=f"<b>{name}</b>, layer %{{customdata[0]}}<br>exact %{{x:.3f}} [%{{customdata[1]:.3f}}, "
            "%{customdata[2]:.3f}]<br>approximate %{y:.3f} [%{customdata[3]:.3f}, %{customdata[4]:.3f}]<extra></extra>",
        )
    zero_line(figure)
    zero_line(figure, axis="x")
    finish(figure, "Attribution patching against patching", height=520)
    whole = pick(overall, kind="all").set_index("quantity")
    said = [
        f"{title} {whole.loc[name, 'value']:.3f} [{whole.loc[name, 'low']:.3f}, {whole.loc[name, 'high']:.3f}]"
        for name, title in (("pearson", "Pearson"), ("spearman", "Spearman"), ("relative_error", "relative error"))
        if name in whole.index
    ]
    place = {"xref": "paper", "yref": "paper", "x": 0.98, "y": 0.03, "xanchor": "right", "align": "right"}
    figure.add_annotation(text="<br>".join(said), showarrow=False, font={"size": 12, "color": MUTED}, **place)
    figure.update_xaxes(title_text=f"exact effect ({EFFECT_UNITS[quantity]})", showgrid=True)
    figure.update_yaxes(title_text=f"first-order effect ({EFFECT_UNITS[quantity]})")
    return figure.update_layout(legend_y=1.03)


@checked
def head_links(links: pd.DataFrame, correlations: pd.DataFrame, *, quantity: str = "logit_difference") -> go.Figure:
    """Draw each head's effect against statistics of its attention, with their rank correlation; one row per model.

    Heads whose effect's interval excludes 0 are filled.

    Args:
        links, correlations: `HeadLinks.to_frame` and `HeadLinks.correlations`.
        quantity: the one whose change is an effect, "logit_difference" or "divergence".

    Raises:
        ValueError: a column is missing or a table is empty.
    """
    columns = ("model", "number", "layer", "head", "value", "low", "high", "effect", "effect_low", "effect_high")
    require(links, columns, "head_links")
    require(correlations, ("model", "number", "value", "low", "high"), "head_correlations")
    models = [key for key in MODELS if key in set(links["model"])]
    numbers = [key for key in HEAD_AXES if key in set(links["number"])]
    pairs = list(product(models, numbers))
    known = correlations.set_index(["model", "number"])
    titles = ["ρ {:.2f} [{:.2f}, {:.2f}]".format(*known.loc[key, ["value", "low", "high"]]) for key in pairs]
    figure = make_subplots(
        *(len(models), len(numbers)),
        shared_yaxes="all",
        horizontal_spacing=0.03,
        vertical_spacing=0.16,
        subplot_titles=titles,
    )
    for place, (model, number) in enumerate(pairs):
        name, tint = MODELS[model]
        part = pick(links, model=model, number=number)
        filled = sure(part["effect_low"].to_numpy(), part["effect_high"].to_numpy())
        trace = go.Scatter(
            x=part["value"].to_numpy(),
            y=part["effect"].to_numpy(),
            customdata=part[["layer", "head", "low", "high", "effect_low", "effect_high"]].to_numpy(),
            mode="markers",
            marker={
                "color": tint,
                "size": 8,
                "symbol": np.where(filled, "circle", "circle-open"),
                "line": {"width": 1.5},
            },
            name=name,
            legendgroup=model,
            showlegend=number == numbers[0],
            hovertemplate=f"<b>{name}</b>, layer %{{customdata[0]}} head %{{customdata[1]}}<br>{HEAD_AXES[number]} "
            "%{x:.3f} [%{customdata[2]:.3f}, %{customdata[3]:.3f}]<br>effect %{y:.3f} [%{customdata[4]:.3f}, "
            "%{customdata[5]:.3f}]<extra></extra>",
        )
        row, col = divmod(place, len(numbers))
        figure.add_trace(trace, row=row + 1, col=col + 1)
        says = HEAD_AXES[number] if model != "change" else f"Δ {HEAD_AXES[number]}"
        figure.update_xaxes(title_text=says, title_font={"size": 11.5, "color": MUTED}, row=row + 1, col=col + 1)
    zero_line(figure)
    finish(figure, "Heads' effects against statistics of their attention", height=150 + 240 * len(models))
    unit = "logits" if quantity == "logit_difference" else "change of KL, nats"
    figure.update_yaxes(title_text=f"effect ({unit})", col=1)
    return figure.update_layout(legend_y=1.04)
