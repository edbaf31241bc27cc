"""Localisation of a fine-tuning's gain in the weights: parts swapped, interpolation between two models, and change."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import MUTED, colour, escaped, finish, in_order, title_of, zero_line

from .table_checks import axis_range, band, error_bars, panels, pick, require

SHARE = ("recovered", "recovered_low", "recovered_high")
SWAPS = ("corruption", "kind", "part", "k", "quantity", "value", "low", "high", *SHARE)
RECOVERED = "recovered share (0 = receiver, 1 = giver)"
OUTCOME_AXES = {
    "accuracy": "accuracy (fraction of images)",
    "logit_difference": "logit difference (label − foil)",
    "loss": "loss (nats, lower is better)",
    "divergence": "KL from the tuned model (nats)",
}
"""Quantities drawn along the line between two models, with their units."""


@checked
def swap_recovery(summary: pd.DataFrame, *, quantity: str = "logit_difference") -> go.Figure:
    """Draw the share of the gap that each part's weights recover, one panel per corruption.

    If the gap's interval contains 0, as it usually does on clean images, there is no share and the panel says so.

    Args:
        summary: `Swaps.summary()`; its rows of kind `single` are drawn.
        quantity: `logit_difference`, `accuracy` or `divergence`.

    Raises:
        ValueError: a column is missing, or there is no such row.
    """
    require(summary, SWAPS, "swaps")
    single = pick(summary, kind="single", quantity=quantity)
    require(single, SWAPS, f"swaps (single parts, {quantity})")
    corruptions, parts = in_order(single["corruption"]), list(dict.fromkeys(single["part"]))
    parts.sort(key=_depth)
    figure = panels([title_of(corruption) for corruption in corruptions], spacing=0.03)
    for col, corruption in enumerate(corruptions, start=1):
        part = pick(single, corruption=corruption).set_index("part").loc[parts].reset_index()
        known = part[part["recovered"].notna()]
        if known.empty:
            figure.add_annotation(
                text="no gap to recover", showarrow=False, row=1, col=col, x=0.5, y=(len(parts) - 1) / 2
            )
        trace = go.Scatter(
            x=known["recovered"].to_numpy(),
            y=[parts.index(name) for name in known["part"]],
            error_x=error_bars(known["recovered"], known["recovered_low"], known["recovered_high"]),
            customdata=known[["part", "recovered_low", "recovered_high", "value"]].to_numpy(),
            mode="markers",
            marker={"color": colour(corruption), "size": 8, "symbol": [_symbol(name) for name in known["part"]]},
            showlegend=False,
            hovertemplate="<b>%{customdata[0]}</b>: %{x:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}]; "
            f"{quantity.replace('_', ' ')} %{{customdata[3]:.3f}}<extra></extra>",
        )
        figure.add_trace(trace, row=1, col=col)
        figure.add_vline(1, line={"color": MUTED, "width": 1, "dash": "dot"}, layer="below", row=1, col=col)
        zero_line(figure, axis="x", row=1, col=col)
    finish(
        figure,
        f"Weights of one part from the other model: {quantity.replace('_', ' ')}",
        height=150 + 17 * len(parts),
        legend=False,
    )
    figure.update_yaxes(
        tickvals=list(range(len(parts))), ticktext=[escaped(name) for name in parts], range=[len(parts) - 0.4, -0.6]
    )
    figure.update_xaxes(title_text=RECOVERED, showgrid=True, range=axis_range(single["recovered"], 0, 1, room=0.25))
    return figure.update_layout(margin={"l": 130})


@checked
def swap_curves(summary: pd.DataFrame, *, quantity: str = "logit_difference") -> go.Figure:
    """Draw the recovered share as more parts are swapped together, from the first on and from the last back.

    Args:
        summary: `Swaps.summary()`; its rows of kind `first` and `last` are drawn.
        quantity: `logit_difference`, `accuracy` or `divergence`.

    Raises:
        ValueError: a column is missing, or there is no such row.
    """
    require(summary, SWAPS, "swaps")
    rows = summary[summary["kind"].isin(("first", "last")) & (summary["quantity"] == quantity)]
    rows = rows[rows["recovered"].notna()]
    require(rows, SWAPS, f"swaps (from either end, {quantity}, under a corruption with a gap)")
    kinds = {"first": "From the input on", "last": "From the output back"}
    figure = panels(list(kinds.values()), spacing=0.04)
    for (col, kind), corruption in product(enumerate(kinds, start=1), in_order(rows["corruption"])):
        line = pick(rows, kind=kind, corruption=corruption).sort_values("k")
        names = [escaped(name) if name else "none" for name in line["part"]]
        traces = _banded(line, "k", SHARE, corruption, col == 1, hover="%{customdata}: %{y:.3f}", custom=names)
        figure.add_traces(traces, rows=1, cols=col)
        figure.update_xaxes(tickvals=line["k"].to_list(), ticktext=names, tickangle=-40, row=1, col=col)
    for height in (0, 1):
        figure.add_hline(
            height, line={"color": MUTED, "width": 1, "dash": "solid" if height == 0 else "dot"}, layer="below"
        )
    finish(figure, f"Weights swapped from either end: {quantity.replace('_', ' ')}", height=440)
    figure.update_xaxes(title_text="all parts up to this one are the giver's", row=1, col=1)
    figure.update_xaxes(title_text="this part and all after it are the giver's", row=1, col=2)
    figure.update_yaxes(title_text=RECOVERED, row=1, col=1)
    return figure.update_layout(margin={"b": 110})


@checked
def interpolation_curves(
    summary: pd.DataFrame, quantities: Sequence[str] = ("accuracy", "logit_difference", "loss")
) -> go.Figure:
    """Draw accuracy, logit difference and loss along the line between two models' weights, per condition, with bands.

    Args:
        summary: `Interpolation.summary()`.
        quantities: those to draw, keys of `OUTCOME_AXES`; the table may lack some.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(summary, ("corruption", "alpha", "quantity", "value", "low", "high"), "interpolation")
    shown = [quantity for quantity in quantities if quantity in set(summary["quantity"])]
    figure = panels([quantity.replace("_", " ").capitalize() for quantity in shown], shared_yaxes=False, spacing=0.08)
    for (col, quantity), corruption in product(enumerate(shown, start=1), in_order(summary["corruption"])):
        line = pick(summary, quantity=quantity, corruption=corruption).sort_values("alpha")
        columns, hover = ("value", "low", "high"), "%{y:.3f} at alpha %{x:.3g}"
        figure.add_traces(_banded(line, "alpha", columns, corruption, col == 1, hover=hover), rows=1, cols=col)
    for place in (0, 1):
        figure.add_vline(place, line={"color": MUTED, "width": 1, "dash": "dot"}, layer="below")
    finish(figure, "Between the base model's weights and the tuned model's", height=420)
    figure.update_xaxes(title_text="alpha (0 = base, 1 = tuned)")
    for col, quantity in enumerate(shown, start=1):
        figure.update_yaxes(title_text=OUTCOME_AXES[quantity], row=1, col=col)
    return figure


@checked
def weight_changes(parts: pd.DataFrame) -> go.Figure:
    """Draw the change of each part's weights relative to their size, one colour per model.

    Args:
        parts: `WeightChanges.part_frame(model=...)` of one or several models, concatenated.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(parts, ("model", "part", "relative"), "weight_change_parts")
    names = sorted(dict.fromkeys(parts["part"]), key=_depth)
    figure = go.Figure()
    for model in in_order(parts["model"]):
        part = pick(parts, model=model).set_index("part").reindex(names).reset_index()
        shown = part[np.isfinite(part["relative"])]
        trace = go.Scatter(
            x=shown["relative"].to_numpy(),
            y=[names.index(name) for name in shown["part"]],
            customdata=shown[["part"]].to_numpy(),
            mode="markers",
            marker={"color": colour(model), "size": 8, "symbol": [_symbol(name) for name in shown["part"]]},
            name=title_of(model, short=True),
            hovertemplate=f"<b>{escaped(title_of(model))}</b> %{{customdata[0]}}: %{{x:.4g}}<extra></extra>",
        )
        figure.add_trace(trace)
    finish(figure, "Relative change of each part's weights", height=150 + 17 * len(names))
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[escaped(name) for name in names], range=[len(names) - 0.4, -0.6]
    )
    figure.update_xaxes(title_text="|tuned − base| / |base| (Frobenius norms)", rangemode="tozero", showgrid=True)
    return figure.update_layout(margin={"l": 130})


def _banded(
    part: pd.DataFrame,
    along: str,
    columns: Sequence[str],
    corruption: str,
    legend: bool,
    *,
    hover: str,
    custom: list[str] | None = None,
) -> list[go.Scatter]:
    """Return the traces of a line (the first of `columns`) and its interval's band (the others), in the corruption's
    colour."""
    tint, x = colour(corruption), part[along].to_numpy()
    value, low, high = (part[column] for column in columns)
    line = go.Scatter(
        x=x,
        y=value.to_numpy(),
        customdata=custom,
        mode="lines+markers",
        line={"color": tint, "width": 2.2},
        marker={"color": tint, "size": 6},
        name=title_of(corruption),
        legendgroup=corruption,
        showlegend=legend,
        hovertemplate=f"<b>{title_of(corruption)}</b> {hover}<extra></extra>",
    )
    return [*band(x, low, high, tint, corruption), line]


def _depth(part: str) -> tuple[int, int, int]:
    """Return a sort key: the place of a part in a forward pass; a whole block comes before its own parts."""
    if not part.startswith("blocks."):
        return ({"embed": -1, "ln_final": 10**6, "head": 10**6 + 1}.get(part, 10**6 + 2), 0, 0)
    _, layer, *own = part.split(".")
    order = ("", "ln1+attn", "ln1", "attn", "ln2+mlp", "ln2", "mlp")
    return int(layer), order.index(own[0] if own else ""), 0


def _symbol(part: str) -> str:
    """Return a marker symbol by the kind of part, so that kinds differ in more than colour."""
    kind = part.rpartition(".")[2]
    kinds = {"attn": "circle", "ln1+attn": "circle", "mlp": "square", "ln2+mlp": "square", "ln1": "x", "ln2": "x"}
    return kinds.get(kind, "diamond")
