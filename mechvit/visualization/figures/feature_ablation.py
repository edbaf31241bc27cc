"""Changes of SAE latents under a corruption in several models, and effects of ablating them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import BASE, MUTED, colour, finish, in_order, title_of, tuned_title, zero_line

from .table_checks import band, images_of, panels, pick, require

ABLATION_AXES = {
    "accuracy": "change of accuracy<br>(fraction; positive = better)",
    "loss": "change of cross-entropy<br>(nats; negative = better)",
}
DISCOVERY = 0.05
"""False discovery rate: latents with a smaller q count as different."""
NAMED = 3
"""Latents per panel whose indices are written beside them."""


@checked
def feature_ablations(summary: pd.DataFrame) -> go.Figure:
    """Draw the change from ablating the n most sensitive latents and controls as frequent: one column per condition.

    Args:
        summary: result of `ablation_summary` for one model and SAE.

    Raises:
        ValueError: a column is missing or nothing was ablated.
    """
    columns = ("corruption", "kind", "n", "quantity", "change", "change_low", "change_high")
    require(summary, columns, "feature_ablation")
    own = summary[summary["kind"] != "untouched"]
    require(own, columns, "feature_ablation (ablations)")
    conditions, shown = in_order(own["corruption"]), [key for key in ABLATION_AXES if key in set(own["quantity"])]
    titles = [images_of(key) for key in conditions]
    figure = panels(titles, len(shown), shared_xaxes=True, shared_yaxes="rows", vertical_spacing=0.06)
    for row, quantity in enumerate(shown, start=1):
        for col, corruption in enumerate(conditions, start=1):
            for kind in ("control", "sensitive"):
                part = pick(own, corruption=corruption, kind=kind, quantity=quantity).sort_values("n")
                figure.add_traces(_line(part, kind, legend=row == col == 1), rows=row, cols=col)
            zero_line(figure, row=row, col=col)
        figure.update_yaxes(title_text=ABLATION_AXES[quantity], title_font={"size": 11.5}, row=row, col=1)
    ticks = sorted(own["n"].unique())
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[str(n) for n in ticks])
    figure.update_xaxes(title_text="latents ablated", row=len(shown))
    finish(figure, "Effect of ablating the latents that corruption changes most", height=140 + 227 * len(shown))
    return figure.update_layout(legend_y=1.05)


def _line(part: pd.DataFrame, kind: str, *, legend: bool) -> list[go.Scatter]:
    """Return the traces of a line and its interval's band."""
    tint = colour("gaussian_noise_2") if kind == "sensitive" else BASE
    says = "most sensitive" if kind == "sensitive" else "equally frequent others (mean of draws)"
    x = part["n"].to_numpy()
    line = go.Scatter(
        x=x,
        y=part["change"].to_numpy(),
        customdata=part[["change_low", "change_high"]].to_numpy(),
        mode="lines+markers",
        line={"color": tint, "width": 2.2, "dash": "solid" if kind == "sensitive" else "dash"},
        marker={"color": tint, "size": 7, "symbol": "circle" if kind == "sensitive" else "circle-open"},
        name=says,
        legendgroup=kind,
        showlegend=legend,
        hovertemplate=f"<b>{says}</b>, %{{x}} latents: %{{y:+.3f}} [%{{customdata[0]:+.3f}}, "
        "%{customdata[1]:+.3f}]<extra></extra>",
    )
    return [*band(x, part["change_low"], part["change_high"], tint, kind, alpha=0.15), line]


@checked
def feature_changes(change: pd.DataFrame) -> go.Figure:
    """Draw every latent's mean activation, corrupted minus clean, in each tuned model against the base.

    On the diagonal, the corruption changes a latent equally in both models. Latents whose two changes differ at a false
    discovery rate of 5% are filled.

    Args:
        change: `FeatureChange.to_frame` of a base and tuned models: model, feature, difference, low, high, beyond,
            beyond_q; the first model is the base.

    Raises:
        ValueError: a column is missing, or there is no second model.
    """
    columns = ("model", "feature", "difference", "low", "high", "beyond", "beyond_q")
    require(change, columns, "feature_change")
    first, *tuned = dict.fromkeys(change["model"])
    require(change[change["model"] != first], columns, "feature_change (a model beside the first)")
    base = pick(change, model=first).set_index("feature")["difference"]
    figure = panels([tuned_title(model) for model in tuned], spacing=0.06)
    reach = 1.05 * float(change["difference"].abs().max() or 1.0)
    for col, model in enumerate(tuned, start=1):
        part = pick(change, model=model).dropna(subset=["difference"]).set_index("feature")
        x = base.loc[part.index]
        apart = (part["beyond_q"] < DISCOVERY).to_numpy()
        furthest = part["beyond"].abs().nlargest(NAMED).index
        trace = go.Scatter(
            x=x.to_numpy(),
            y=part["difference"].to_numpy(),
            text=[str(feature) if feature in furthest else "" for feature in part.index],
            customdata=np.column_stack([part.index, part[["low", "high"]]]),
            mode="markers+text",
            textposition="top center",
            marker={"color": colour(model), "size": 6, "symbol": np.where(apart, "circle", "circle-open")},
            name=title_of(model),
            hovertemplate=f"latent %{{customdata[0]:.0f}}: base %{{x:+.3f}}, {title_of(model, short=True)} tuned "
            "%{y:+.3f} [%{customdata[1]:+.3f}, %{customdata[2]:+.3f}]<extra></extra>",
        )
        figure.add_trace(trace, row=1, col=col)
        line = {"color": MUTED, "width": 1, "dash": "dot"}
        figure.add_shape(
            type="line", x0=-reach, y0=-reach, x1=reach, y1=reach, line=line, layer="below", row=1, col=col
        )
        says = "base: corrupted − clean activation (filled: the models differ)"
        figure.update_xaxes(title_text=says, range=[-reach, reach], row=1, col=col)
    figure.update_yaxes(range=[-reach, reach])
    figure.update_yaxes(title_text="tuned: corrupted − clean activation", row=1, col=1)
    finish(figure, "Change of each latent under the corruption, tuned against base", height=480, legend=False)
    return figure.update_xaxes(showgrid=True)
