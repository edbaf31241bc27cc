"""Corruption errors of every model, and power spectra of the changes that corruptions make."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import ATTACK_TITLES, DASHES, MUTED, RAMPS, finish, in_order, title_of, tuned_title

from .table_checks import axis_range, dot, error_bars, panels, pick, require

COLUMNS = ("model", "group", "family", "level", "quantity", "value", "low", "high")
PANELS = {
    "error": ("Error", "fraction of images, lower is better"),
    "corruption_error": ("Corruption error", "ratio to the reference, lower is better"),
    "relative_error": ("Relative corruption error", "ratio of error added to clean, lower is better"),
}
GROUP_COLOURS = {
    "noise": RAMPS["gaussian_noise"][0][1],
    "blur": RAMPS["gaussian_blur"][0][1],
    "weather": RAMPS["other"][0][1],
    "digital": MUTED,
}
"""Colour of each group of corruptions."""


@checked
def corruption_errors(summary: pd.DataFrame) -> go.Figure:
    """Draw every model's error, corruption error and relative error by corruption, and their means, with intervals.

    Args:
        summary: result of `mean_corruption_error`.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(summary, COLUMNS, "robustness")
    summary = pick(summary, level=0)
    models = in_order(summary["model"])
    rows = list(dict.fromkeys(zip(summary["group"], summary["family"], strict=True)))
    names = [_row_name(group, family) for group, family in rows]
    figure = panels([title for title, _ in PANELS.values()], spacing=0.03)
    offsets = np.linspace(0.25, -0.25, len(models)) if len(models) > 1 else [0.0]
    for (model, offset), (col, quantity) in product(zip(models, offsets, strict=True), enumerate(PANELS, start=1)):
        part = pick(summary, model=model, quantity=quantity).set_index(["group", "family"])
        places = [place for place, row in enumerate(rows) if row in part.index]
        part = part.loc[[rows[place] for place in places]]
        trace = go.Scatter(
            x=part["value"].to_numpy(),
            y=[place - offset for place in places],
            customdata=np.column_stack([[names[place] for place in places], part["low"], part["high"]]),
            error_x=error_bars(part["value"], part["low"], part["high"]),
            mode="markers",
            marker=dot(model, size=7),
            name=tuned_title(model),
            legendgroup=model,
            showlegend=col == 1,
            hovertemplate=f"<b>{title_of(model)}</b>, %{{customdata[0]}}: %{{x:.3f}} "
            "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<extra></extra>",
        )
        figure.add_trace(trace, row=1, col=col)
    height = 150 + (14 + 8 * len(models)) * len(rows)
    finish(figure, "Error under each corruption", height=height)
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=names, range=[len(rows) - 0.4, -0.6])
    for col, (quantity, (_, says)) in enumerate(PANELS.items(), start=1):
        figure.update_xaxes(title_text=says, title_font={"size": 11.5, "color": MUTED}, showgrid=True, row=1, col=col)
        if quantity != "error":
            figure.add_vline(1, line={"color": MUTED, "width": 1}, layer="below", row=1, col=col)
            ratios = pick(summary, quantity=quantity)["value"]
            figure.update_xaxes(range=axis_range(ratios, 0.9, 1.1, room=0.4), row=1, col=col)
    return figure.update_layout(margin={"l": 150}, legend_y=1 + 24 / height)


@checked
def corruption_spectra(spectra: pd.DataFrame) -> go.Figure:
    """Draw the radial power spectrum of every corruption's change, one panel per group.

    Args:
        spectra: one row per corruption, image and annulus: corruption, group, image_id, frequency, power.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(spectra, ("corruption", "group", "frequency", "power"), "corruption_spectra")
    mean = spectra.groupby(["group", "corruption", "frequency"], sort=False, as_index=False)["power"].mean()
    groups = [*dict.fromkeys([group for group in GROUP_COLOURS if group in set(mean["group"])] + [*mean["group"]])]
    figure = panels([group.capitalize() for group in groups], spacing=0.03)
    for col, group in enumerate(groups, start=1):
        part = pick(mean, group=group)
        for place, corruption in enumerate(in_order(part["corruption"])):
            line = pick(part, corruption=corruption).sort_values("frequency")
            trace = go.Scatter(
                x=line["frequency"].to_numpy(),
                y=line["power"].where(line["power"] > 0).to_numpy(),
                mode="lines",
                line={"color": GROUP_COLOURS.get(group, MUTED), "width": 1.8, "dash": DASHES[place % len(DASHES)]},
                name=title_of(corruption),
                hovertemplate=f"<b>{title_of(corruption)}</b> %{{y:.2e}} at %{{x:.3f}} cycles per pixel<extra></extra>",
            )
            figure.add_trace(trace, row=1, col=col)
    finish(figure, "Power spectra of the corruptions' changes", height=470)
    figure.update_xaxes(title_text="frequency (cycles per pixel)")
    top = np.log10(mean["power"].max()) if mean["power"].max() > 0 else 0.0
    figure.update_yaxes(type="log", exponentformat="power", dtick=1, range=[top - 6, top + 0.2])  # six decades
    figure.update_yaxes(title_text="mean squared difference", row=1, col=1)
    return figure.update_layout(margin={"t": 150})


def _row_name(group: str, family: str) -> str:
    if family == "all":
        whole = {"low": "low frequencies", "middle": "middle frequencies", "high": "high frequencies"}.get(group, group)
        return f"<b>Mean of {whole}</b>"
    method, _, victim = family.partition("@")
    if family.startswith("paired_"):
        return title_of(family)
    return ATTACK_TITLES.get(method, method.replace("_", " ").capitalize()) + (f" on {victim}" if victim else "")
