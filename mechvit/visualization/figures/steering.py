"""Steering: recovered share of the gain against the cost on clean images."""

from __future__ import annotations

from itertools import product

import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import BASE, MUTED, RAMPS, escaped, finish, in_order, title_of, zero_line

from .table_checks import error_bars, panels, pick, require

EFFECT_COLUMNS = ("change", "change_low", "change_high", "recovered", "recovered_low", "recovered_high")
COLUMNS = ("corruption", "source", "hook_name", "tokens", "control", "scale", "quantity", *EFFECT_COLUMNS)
SOURCES = {"mean_difference": "Mean difference", "sae": "SAE latents", "between_models": "Tuned − base"}
TINTS = {"mean_difference": RAMPS["gaussian_blur"][0][1], "sae": RAMPS["gaussian_noise"][0][1]}
CHANGES = {
    "accuracy": "fraction of images, negative = cost",
    "logit_difference": "logits, negative = cost",
    "divergence": "KL from the tuned model, nats",
}
"""Unit and sign of each quantity's change."""
SYMBOLS = {"mean_difference": "circle", "sae": "diamond"}


@checked
def steering_by_scale(summary: pd.DataFrame, *, quantity: str = "accuracy") -> go.Figure:
    """Draw each direction's recovered share and clean cost by scale: a column per hook point, random ones in grey.

    The upper row shows the share of the tuned model's gain under a corruption, the lower one the change on clean
    images. Grey lines are random directions of the same length.

    Args:
        summary: `Steering.summary()`, with one corruption besides clean.
        quantity: `accuracy`, `logit_difference` or `divergence` (KL from the tuned model).

    Raises:
        ValueError: a column is missing, the table is empty, or it does not hold exactly one corruption besides clean.
    """
    require(summary, COLUMNS, "steering")
    corruptions = [key for key in in_order(summary["corruption"]) if key != "clean"]
    if len(corruptions) != 1:
        raise ValueError(f"one corruption besides clean is drawn at a time; the table holds {', '.join(corruptions)}")
    rows = summary[summary["quantity"] == quantity]
    hooks = sorted(dict.fromkeys(rows["hook_name"]), key=_depth)
    titles = [_hook_title(hook) for hook in hooks]
    figure = panels(titles, 2, shared_xaxes=True, spacing=0.02, vertical_spacing=0.08)
    shown: set[str] = set()
    for (row, (corruption, value)), (col, hook) in product(
        enumerate(((corruptions[0], "recovered"), ("clean", "change")), start=1), enumerate(hooks, start=1)
    ):
        here = pick(rows, corruption=corruption, hook_name=hook)
        for (source, tokens, control), line in here.groupby(["source", "tokens", "control"], sort=False):
            line = line.sort_values("scale")
            own, name = int(control) == 0, SOURCES.get(str(source), str(source))
            tint = TINTS.get(str(source), RAMPS["other"][0][1]) if own else BASE
            said, group = escaped(name) + ("" if own else ", random"), str(source) if own else "random"
            trace = go.Scatter(
                x=line["scale"].to_numpy(),
                y=line[value].to_numpy(),
                error_y=error_bars(line[value], line[f"{value}_low"], line[f"{value}_high"]) if own else None,
                customdata=line[[f"{value}_low", f"{value}_high"]].to_numpy(),
                mode="lines+markers",
                line={"color": tint, "width": 2.2 if own else 1, "dash": "solid" if own else "dot"},
                marker={"color": tint, "size": 7 if own else 4, "symbol": SYMBOLS.get(str(source), "square")},
                name=escaped(name) if own else "Random, same length",
                legendgroup=group,
                showlegend=group not in shown,
                hovertemplate=f"<b>{said}</b> on {tokens} tokens, scale %{{x:.3g}}: %{{y:.3f}} "
                "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
            )
            shown.add(group)
            figure.add_trace(trace, row=row, col=col)
        zero_line(figure, row=row, col=col)
    figure.add_hline(1, line={"color": MUTED, "width": 1, "dash": "dot"}, layer="below", row=1)
    finish(figure, f"Steering the base model on {title_of(corruptions[0]).lower()} images", height=560)
    scales = sorted(set(rows["scale"]))
    figure.update_xaxes(type="log", tickvals=scales, ticktext=[f"{scale:g}" for scale in scales])
    figure.update_xaxes(title_text="scale", row=2)
    figure.update_yaxes(title_text=f"recovered {quantity.replace('_', ' ')}<br>(0 = base, 1 = tuned)", row=1, col=1)
    figure.update_yaxes(title_text=f"change on clean images<br>({CHANGES[quantity]})", row=2, col=1)
    return figure.update_layout(legend={"yref": "container", "y": 1 - 36 / 560, "yanchor": "top"})


@checked
def steering_cost(chosen: pd.DataFrame, *, quantity: str = "accuracy") -> go.Figure:
    """Draw the recovered share of each source at its chosen hook point and scale against its clean cost, held out.

    Args:
        chosen: `Steering.chosen()`, one panel per corruption.
        quantity: the one that is drawn, `accuracy` or `divergence` (KL from the tuned model).

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(chosen, (*COLUMNS, "clean_change", "clean_change_low", "clean_change_high"), "steering_chosen")
    rows = chosen[(chosen["quantity"] == quantity) & chosen["recovered"].notna()]
    require(rows, COLUMNS, f"steering_chosen ({quantity}, under a corruption with a gap)")
    corruptions = in_order(rows["corruption"])
    figure = panels([title_of(corruption) for corruption in corruptions], spacing=0.04)
    shown: set[str] = set()
    for col, corruption in enumerate(corruptions, start=1):
        for row in pick(rows, corruption=corruption).itertuples():
            name = SOURCES.get(row.source, row.source) + ("" if row.control == 0 else ", random control")
            tint = TINTS.get(row.source, RAMPS["other"][0][1]) if row.control == 0 else BASE
            symbol = SYMBOLS.get(row.source, "square") + ("" if row.control == 0 else "-open")
            one = pd.DataFrame([row._asdict()])
            trace = go.Scatter(
                x=[row.clean_change],
                y=[row.recovered],
                error_x=error_bars(one["clean_change"], one["clean_change_low"], one["clean_change_high"]),
                error_y=error_bars(one["recovered"], one["recovered_low"], one["recovered_high"]),
                mode="markers",
                marker={"color": tint, "size": 11, "symbol": symbol},
                name=escaped(name),
                legendgroup=name,
                showlegend=name not in shown,
                hovertemplate=f"<b>{escaped(name)}</b> at {_hook_title(row.hook_name)}, scale {row.scale:.3g}: "
                "recovered %{y:.3f}, clean %{x:+.3f}<extra></extra>",
            )
            shown.add(name)
            figure.add_trace(trace, row=1, col=col)
        zero_line(figure, row=1, col=col)
        zero_line(figure, axis="x", row=1, col=col)
    what = "gain" if quantity == "accuracy" else "difference"
    finish(figure, f"Recovered {what} and clean cost of steering, on held-out images", height=430)
    says = "clean accuracy (negative = cost)" if quantity == "accuracy" else f"clean {CHANGES[quantity]}"
    figure.update_xaxes(title_text=f"change of {says}", showgrid=True)
    figure.update_yaxes(title_text=f"recovered {quantity} (0 = base, 1 = tuned)", row=1, col=1)
    return figure


def _hook_title(hook_name: str) -> str:
    _, layer, point = hook_name.split(".")
    return f"Block {layer}, {point.removeprefix('hook_').replace('_', ' ')}"


def _depth(hook_name: str) -> tuple[int, str]:
    _, layer, point = hook_name.split(".")
    return int(layer), point
