"""Transfer between corruptions: the matrix, its means by relation, and transfer against distance of spectra."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.number_format import share, signed
from mechvit.visualization.style import BASE, INK, MUTED, RAMPS, finish, title_of, zero_line

from .change_map import bold, change_map, sure
from .table_checks import error_bars, panels, pick, require

COLUMNS = (
    "trained_on",
    "tested_on",
    "trained_group",
    "tested_group",
    "relation",
    "accuracy",
    "gain",
    "gain_low",
    "gain_high",
    "transfer",
    "transfer_low",
    "transfer_high",
)
MEAN_COLUMNS = ("scope", "pairs", "gain", "gain_low", "gain_high", "transfer", "transfer_low", "transfer_high")
SIMILARITY = ("quantity", "pairs", "correlation", "low", "high", "p_value")
SCOPES = {
    "itself": "The same corruption",
    "family": "Another level of it",
    "group": "Another of its group",
    "across": "Another group",
    "member": "A mixture, on its members",
    "outside": "A mixture, on others",
    "clean": "Clean images",
    "control": "Trained on clean images",
    "same band": "Same band",
    "other band": "Other band",
}
CONTRAST_TITLES = {
    "family minus across": "Another level of it − another group",
    "group minus across": "Another of its group − another group",
    "member minus outside": "A mixture, on its members − a mixture, on others",
    "same band minus other band": "Same band − other band",
}
SCOPES |= CONTRAST_TITLES
"""Name of each scope in a figure; a scope from one group to another is named as in the table."""
ROWS = {"base": "Base, accuracy", "clean": "Clean (control)"}
"""Names of the rows that are not corruptions."""
TINTS = {
    "family": RAMPS["other"][0][1],
    "group": RAMPS["gaussian_blur"][0][1],
    "across": RAMPS["gaussian_noise"][0][1],
}
"""Colour of a pair of corruptions by relation."""


@checked
def transfer_matrix(transfer: pd.DataFrame, quantity: str = "gain") -> go.Figure:
    """Draw every model on every corruption, in the table's order, with lines between groups.

    Args:
        transfer: `Transfer.matrix`.
        quantity: `gain` (over the base, percentage points, below a row of the base's accuracy) or `transfer` (share of
            the gain of the model trained on the tested corruption; empty where that gain's interval does not lie above
            zero).

    Numbers whose interval excludes zero are bold.

    Raises:
        ValueError: a column is missing, the table is empty, or the quantity is unknown.
    """
    require(transfer, COLUMNS, "transfer")
    if quantity not in ("gain", "transfer"):
        raise ValueError(f"quantity must be gain or transfer; got {quantity!r}")
    if quantity == "transfer":
        transfer = transfer[(transfer["relation"] != "base") & (transfer["tested_group"] != "clean")]
    rows, columns = (list(dict.fromkeys(transfer[name])) for name in ("trained_on", "tested_on"))
    names = ("accuracy", "gain", "gain_low", "gain_high", "transfer", "transfer_low", "transfer_high")
    grids = {
        name: transfer.pivot(index="trained_on", columns="tested_on", values=name).loc[rows, columns].to_numpy(float)
        for name in names
    }
    low, high = grids[f"{quantity}_low"], grids[f"{quantity}_high"]
    text = [[_cell(quantity, row == "base", grids, i, j) for j in range(len(columns))] for i, row in enumerate(rows)]
    shown = grids["gain"] * 100 if quantity == "gain" else grids["transfer"]
    figure = change_map(
        shown,
        bold(text, sure(low, high)),
        x=[title_of(key, short=True) for key in columns],
        y=[ROWS.get(key, title_of(key, short=True)) for key in rows],
        title="Gain of training on each corruption on every other"
        if quantity == "gain"
        else "Share of what training on the tested corruption itself gives",
        colours="change over the base, percentage points (positive: better)"
        if quantity == "gain"
        else "share of the tested corruption’s own gain (negative: it harms)",
        hover="<b>trained on %{y}, tested on %{x}</b><br>accuracy %{customdata[0]:.3f}<br>"
        "gain %{customdata[1]:+.1f} points [%{customdata[2]:+.1f}, %{customdata[3]:+.1f}]<br>"
        "share of own gain %{customdata[4]:.2f} [%{customdata[5]:.2f}, %{customdata[6]:.2f}]<extra></extra>",
        customdata=np.dstack([grids[name] * (100 if name.startswith("gain") else 1) for name in names]),
        height=300 + 34 * len(rows),
        text_size=12.5 if len(columns) <= 12 else 10.5,
        reach=None if quantity == "gain" else 1.6,
    )
    figure.update_xaxes(tickangle=-40)
    _set_groups_apart(figure, transfer, rows, columns)
    return figure.update_layout(margin={"l": 150, "t": 166, "b": 128, "r": 70})


def _cell(quantity: str, base: bool, grids: dict[str, np.ndarray], i: int, j: int) -> str:
    value = grids["accuracy" if base else quantity][i, j]
    if np.isnan(value):
        return ""
    if base:
        return f"{value:.1%}"
    return signed(value * 100) if quantity == "gain" else share(value)


def _set_groups_apart(figure: go.Figure, transfer: pd.DataFrame, rows: list[str], columns: list[str]) -> None:
    """Draw lines between groups, and each group's name beside its rows and columns."""
    line = {"color": MUTED, "width": 1.4}
    for axis, keys, kind in (("y", rows, "trained"), ("x", columns, "tested")):
        groups = transfer.drop_duplicates(f"{kind}_on").set_index(f"{kind}_on")[f"{kind}_group"].loc[keys].tolist()
        starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
        for start, end in zip(starts, [*starts[1:], len(groups)], strict=True):
            middle, name = (start + end - 1) / 2, groups[start]
            if start:
                (figure.add_hline if axis == "y" else figure.add_vline)(start - 0.5, line=line)
            if name in ("base", "clean") or (name == "mixture" and end - start == 1):
                continue
            place = {"x": 1.01, "y": middle, "xref": "paper", "xanchor": "left"}
            if axis == "x":
                place = {"x": middle, "y": -0.01, "yref": "paper", "yanchor": "top"}
            figure.add_annotation(text=name, showarrow=False, font={"size": 12, "color": MUTED}, **place)


@checked
def transfer_means(means: pd.DataFrame) -> go.Figure:
    """Draw mean gain and pooled share of the own gain by relation, frequency band and groups, with intervals.

    Args:
        means: the table `Transfer.means`.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(means, MEAN_COLUMNS, "transfer_means")
    names = [SCOPES.get(scope, scope.capitalize()) for scope in means["scope"]]
    figure = panels(["Gain over the base", "Share of the own gain"], spacing=0.04)
    tints = [MUTED if s in CONTRAST_TITLES else TINTS.get(s, INK if s in SCOPES else BASE) for s in means["scope"]]
    for col, (quantity, factor, unit) in enumerate((("gain", 100, " points"), ("transfer", 1, "")), start=1):
        part = means[[quantity, f"{quantity}_low", f"{quantity}_high"]] * factor
        part.columns = pd.Index(["value", "low", "high"])
        digits = "+.1f" if quantity == "gain" else ".2f"
        trace = go.Scatter(
            x=part["value"].to_numpy(),
            y=list(range(len(means))),
            customdata=np.column_stack([names, part["low"], part["high"], means["pairs"]]),
            error_x=error_bars(part["value"], part["low"], part["high"]) | {"color": MUTED},
            mode="markers",
            marker={"color": tints, "size": 9},
            showlegend=False,
            hovertemplate=f"<b>%{{customdata[0]}}</b>: %{{x:{digits}}}{unit} [%{{customdata[1]:{digits}}}, "
            f"%{{customdata[2]:{digits}}}], %{{customdata[3]}} pairs<extra></extra>",
        )
        figure.add_trace(trace, row=1, col=col)
    finish(figure, "Transfer by the relation between training and test", height=150 + 26 * len(means), legend=False)
    ticks = [f"{name} ({pairs})" for name, pairs in zip(names, means["pairs"], strict=True)]
    figure.update_yaxes(tickvals=list(range(len(means))), ticktext=ticks, range=[len(means) - 0.4, -0.6])
    figure.update_xaxes(title_text="mean gain (percentage points)", showgrid=True, row=1, col=1)
    figure.update_xaxes(title_text="gain as a share of the own gain (1 = as much)", showgrid=True, row=1, col=2)
    zero_line(figure, axis="x")
    return figure.update_layout(margin={"l": 230})


@checked
def transfer_similarity(transfer: pd.DataFrame, similarity: pd.DataFrame) -> go.Figure:
    """Draw gain and share of the own gain of every pair of corruptions against the distance of their spectra.

    Args:
        transfer: the table `Transfer.matrix`, computed with spectra.
        similarity: the table `Transfer.similarity`.

    Raises:
        ValueError: a column is missing, or no pair has a distance.
    """
    require(transfer, (*COLUMNS, "spectral_distance"), "transfer")
    require(similarity, SIMILARITY, "transfer_similarity")
    pairs = transfer[transfer["spectral_distance"].notna()]
    require(pairs, COLUMNS, "transfer (pairs with a spectral distance)")
    tests = {row.quantity: row for row in similarity.itertuples()}
    titles = [f"ρ = {signed(row.correlation, 2)}, p = {row.p_value:.2g}" for row in tests.values()]
    figure = panels(titles, shared_yaxes=False, spacing=0.11)
    axes = {"gain": "gain over the base (percentage points)", "transfer": "share of the own gain"}
    for col, quantity in enumerate(tests, start=1):
        factor, digits = (100, "+.1f") if quantity == "gain" else (1, ".2f")
        for relation, tint in TINTS.items():
            part = pick(pairs, relation=relation).dropna(subset=[quantity])
            if part.empty:
                continue
            values = part[[quantity, f"{quantity}_low", f"{quantity}_high"]].to_numpy() * factor
            names = [
                f"{title_of(a, short=True)} → {title_of(b, short=True).lower()}"
                for a, b in zip(part["trained_on"], part["tested_on"], strict=True)
            ]
            trace = go.Scatter(
                x=part["spectral_distance"].to_numpy(),
                y=values[:, 0],
                customdata=np.column_stack([names, values[:, 1:]]),
                error_y=error_bars(*(pd.Series(column) for column in values.T), tint=tint) | {"thickness": 0.8},
                mode="markers",
                marker={"color": tint, "size": 8},
                name=SCOPES[relation],
                legendgroup=relation,
                showlegend=col == 1,
                hovertemplate=f"<b>%{{customdata[0]}}</b> %{{y:{digits}}} [%{{customdata[1]:{digits}}}, "
                f"%{{customdata[2]:{digits}}}] at %{{x:.3f}} cycles per pixel<extra></extra>",
            )
            figure.add_trace(trace, row=1, col=col)
        figure.update_yaxes(title_text=axes[quantity], row=1, col=col)
    finish(figure, "Do gains transfer between corruptions with similar spectra?", height=430)
    figure.update_xaxes(title_text="distance of the spectra (cycles per pixel)")
    zero_line(figure)
    return figure
