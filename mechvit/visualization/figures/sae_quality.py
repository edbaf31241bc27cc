"""Sparse autoencoders of a sweep: sparsity against explained variance, and firing rates of their latents."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import DASHES, colour, finish, in_order, title_of

from .saes import ARCHITECTURE_TITLES
from .table_checks import panels, pick, require

LOOKS = {
    "standard": ("gaussian_blur_2", "circle"),
    "batchtopk": ("gaussian_noise_2", "diamond"),
    "topk": ("other_2", "square"),
    "jumprelu": ("base", "triangle-up"),
    "gated": ("gaussian_blur_4", "cross"),
    "matryoshka_batchtopk": ("gaussian_noise_4", "star"),
}
"""Colour key and symbol of each architecture in training."""
PANELS_A_ROW = 3
"""Number of panels side by side."""
TICKS = [digit * 10**power for power in range(-2, 6) for digit in (1, 2, 5)]
"""Ticks of the L0 axis."""


@checked
def frontier(points: pd.DataFrame) -> go.Figure:
    """Draw explained variance against L0, one dot per SAE and one panel per condition.

    SAEs of one kind and hook point are connected in order of L0.

    Args:
        points: one row per SAE and corruption, with `architecture` (the SAE's name), kind, corruption, l0 and
            explained_variance; hook_name, d_sae, k, lr and dead_fraction are optional.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(points, ("architecture", "kind", "corruption", "l0", "explained_variance"), "of the frontier")
    conditions = in_order(points["corruption"])
    figure, places = _panels([title_of(key) for key in conditions])
    shown = [name for name in ("d_sae", "k", "lr", "dead_fraction") if name in points]
    points = points if "hook_name" in points else points.assign(hook_name="")
    hooks = list(dict.fromkeys(points["hook_name"]))
    kinds = [key for key in LOOKS if key in set(points["kind"])]
    kinds += sorted(set(points["kind"]) - set(LOOKS))
    extra = "".join(f"<br>{column} %{{customdata[{i}]:.4g}}" for i, column in enumerate(shown, start=1))
    for corruption, (row, col) in zip(conditions, places, strict=True):
        for kind, hook in product(kinds, hooks):
            part = pick(points, corruption=corruption, kind=kind, hook_name=hook).sort_values("l0")
            if part.empty:
                continue
            key, symbol = LOOKS.get(kind, ("base", "x"))
            name = ARCHITECTURE_TITLES.get(kind, kind) + (f", {hook}" if len(hooks) > 1 else "")
            trace = go.Scatter(
                x=part["l0"].to_numpy(),
                y=part["explained_variance"].to_numpy(),
                customdata=part[["architecture", *shown]].to_numpy(),
                mode="lines+markers",
                line={"color": colour(key), "width": 1.4, "dash": DASHES[hooks.index(hook) % len(DASHES)]},
                marker={"color": colour(key), "size": 10, "symbol": symbol},
                name=name,
                legendgroup=name,
                showlegend=(row, col) == (1, 1),
                hovertemplate=f"<b>%{{customdata[0]}}</b><br>explained variance %{{y:.4f}}<br>L0 %{{x:.1f}}{extra}"
                "<extra></extra>",
            )
            figure.add_trace(trace, row=row, col=col)
    figure.update_xaxes(type="log", matches="x", tickvals=TICKS, title_text="L0 (active latents per token)")
    figure.update_yaxes(title_text="explained variance (1 is perfect)", col=1)
    return _finish(figure, "Sparsity against explained variance", 120 + 320 * places[-1][0])


@checked
def feature_density(density: pd.DataFrame) -> go.Figure:
    """Draw the distribution of firing rates, one panel per SAE and one line per condition; dead latents on hover.

    Args:
        density: `SAEEvaluation.density_frame` (architecture, corruption, low, high, latents).

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(density, ("architecture", "corruption", "low", "high", "latents"), "sae_density")
    names = list(dict.fromkeys(density["architecture"]))
    figure, places = _panels([ARCHITECTURE_TITLES.get(name, name) for name in names])
    for name, (row, col) in zip(names, places, strict=True):
        here = pick(density, architecture=name)
        for corruption in in_order(here["corruption"]):
            part = pick(here, corruption=corruption).sort_values("low")
            alive = part[np.isfinite(part["low"])]
            dead = int(part["latents"].sum() - alive["latents"].sum())
            trace = go.Scatter(
                x=(alive["low"] + alive["high"]).to_numpy() / 2,
                y=alive["latents"].to_numpy(),
                mode="lines",
                line={"color": colour(corruption), "width": 2, "shape": "hvh"},
                name=title_of(corruption),
                legendgroup=corruption,
                showlegend=(row, col) == (1, 1),
                hovertemplate=f"<b>{title_of(corruption)}</b> %{{y:,}} latents at 10<sup>%{{x:.2f}}</sup>; {dead:,} "
                "never fire<extra></extra>",
            )
            figure.add_trace(trace, row=row, col=col)
    figure.update_xaxes(title_text="log10 of the firing rate (share of tokens)")
    figure.update_yaxes(title_text="latents", rangemode="tozero", col=1)
    return _finish(figure, "Distribution of latents' firing rates", 120 + 260 * places[-1][0])


def _panels(titles: list[str]) -> tuple[go.Figure, list[tuple[int, int]]]:
    """Return a figure of panels with these titles in rows of three, and the row and column of each."""
    columns = min(PANELS_A_ROW, len(titles))
    rows = -(-len(titles) // columns)
    figure = panels(titles, rows, columns=columns, shared_yaxes="all", vertical_spacing=min(0.3, 0.5 / rows))
    return figure, [(i // columns + 1, i % columns + 1) for i in range(len(titles))]


def _finish(figure: go.Figure, title: str, height: int) -> go.Figure:
    """Apply the common style, with title and legend at a fixed distance from the top for any number of rows."""
    finish(figure, title, height=height)
    legend = {"yref": "container", "y": 1 - 36 / height, "yanchor": "top"}
    return figure.update_layout(title_y=1 - 20 / height, legend=legend)
