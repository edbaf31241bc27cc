"""Accuracy, top-5, top-10 and calibration: Table 1, Figures 2 and 3, and the cross-family results (section 4.1)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import (
    MUTED,
    families,
    family_of,
    finish,
    in_order,
    strongest,
    strongest_of_each,
    title_of,
    tuned_title,
    zero_line,
)

from .change_map import bold, change_map, sure
from .table_checks import dot, error_bars, panels, pick, require

METRIC_TITLES = {"accuracy": "Top-1", "top5": "Top-5", "top10": "Top-10", "ece": "ECE"}
COLUMNS = ("model", "corruption", "metric", "value", "low", "high", "gain", "gain_low", "gain_high")


@checked
def table_one(summary: pd.DataFrame) -> go.Figure:
    """Draw Table 1 as dots and intervals: every metric of every model on each family's strongest corruption.

    Args:
        summary: `performance_summary`, one row per model, corruption and metric; fractions in [0, 1].

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(summary, COLUMNS, "performance_summary")
    worst = strongest_of_each(summary["corruption"])
    models = in_order(summary["model"])[::-1]
    titles = list(titles_of(summary).values())
    figure = panels(titles, len(worst), shared_xaxes="columns", spacing=0.035, vertical_spacing=0.1)
    for row, corruption in enumerate(worst, start=1):
        for col, metric in enumerate(METRIC_TITLES, start=1):
            for model in models:
                part = pick(summary, corruption=corruption, metric=metric, model=model)
                hover = f"<b>{title_of(model)}</b> on {title_of(corruption)}<br>{METRIC_TITLES[metric]} %{{x:.3f}} "
                trace = go.Scatter(
                    x=part["value"].to_numpy(),
                    y=[title_of(model, short=True)] * len(part),
                    customdata=part[["low", "high"]].to_numpy(),
                    error_x=error_bars(part["value"], part["low"], part["high"]),
                    mode="markers",
                    marker=dot(model),
                    showlegend=False,
                    hovertemplate=hover + "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
                )
                figure.add_trace(trace, row=row, col=col)
        figure.update_yaxes(title_text=f"on {title_of(corruption)}", row=row, col=1)
    finish(figure, "Every model on the strongest corruptions", height=130 + 190 * len(worst), legend=False)
    figure.update_yaxes(showgrid=True)
    figure.update_xaxes(showgrid=True, nticks=4, tickformat=".2~f")
    for col, (metric, _) in enumerate(METRIC_TITLES.items(), start=1):
        better = "error, lower is better" if metric == "ece" else "fraction, higher is better"
        figure.update_xaxes(title_text=better, title_font={"size": 11.5, "color": MUTED}, row=len(worst), col=col)
    return figure.update_layout(margin={"t": 84})


@checked
def gains(summary: pd.DataFrame) -> go.Figure:
    """Draw Figures 2 and 3: each tuned model's gain over the base on its own family's strongest corruption, by metric.

    Args:
        summary: `performance_summary`; `gain` is tuned minus base on the same images, a fraction.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(summary, COLUMNS, "performance_summary")
    worst = [strongest(summary["corruption"], family) for family in families(summary["model"])]
    figure = panels([f"Tested on {title_of(corruption)}" for corruption in worst])
    metrics = [metric for metric in METRIC_TITLES if metric != "ece"]
    for col, corruption in enumerate(worst, start=1):
        models = [m for m in in_order(summary["model"]) if family_of(m) == family_of(corruption)]
        offsets = np.linspace(-0.22, 0.22, len(models)) if len(models) > 1 else [0.0]
        for model, offset in zip(models, offsets, strict=True):
            part = pick(summary, corruption=corruption, model=model).set_index("metric").loc[metrics] * 1
            points = part[["gain", "gain_low", "gain_high"]] * 100
            trace = go.Scatter(
                x=np.arange(len(metrics)) + offset,
                y=points["gain"].to_numpy(),
                customdata=points[["gain_low", "gain_high"]].to_numpy(),
                error_y=error_bars(points["gain"], points["gain_low"], points["gain_high"]),
                mode="markers",
                marker=dot(model, size=10),
                name=f"tuned on {title_of(model, short=True).lower()}",
                hovertemplate=f"<b>{title_of(model)} tuned</b> %{{y:+.1f}} points "
                "[%{customdata[0]:+.1f}, %{customdata[1]:+.1f}]<extra></extra>",
            )
            figure.add_trace(trace, row=1, col=col)
    figure.update_xaxes(tickvals=list(range(len(metrics))), ticktext=[titles_of(summary)[metric] for metric in metrics])
    figure.update_xaxes(range=[-0.5, len(metrics) - 0.5])
    figure.update_yaxes(title_text="gain over the base (percentage points)", row=1, col=1)
    zero_line(figure)
    return finish(figure, "Gain by metric and training severity", height=400)


def titles_of(summary: pd.DataFrame) -> dict[str, str]:
    """Return the title of each metric, marked n/a if it does not apply (top-k with at most k classes)."""
    known = set(summary.loc[summary["value"].notna(), "metric"])
    return {metric: title if metric in known else f"{title} (n/a)" for metric, title in METRIC_TITLES.items()}


@checked
def transfer(summary: pd.DataFrame, metric: str = "accuracy") -> go.Figure:
    """Draw section 4.1's cross-family and clean results: every model on every condition, coloured by its change.

    Args:
        summary: `performance_summary`.
        metric: `accuracy`, `top5`, `top10` or `ece`.

    A cell's text is the metric's value, in bold if the interval of the change excludes zero.

    Raises:
        ValueError: a column is missing, or no row has the metric.
    """
    require(summary, COLUMNS, "performance_summary")
    part = pick(summary, metric=metric)
    require(part, COLUMNS, f"performance_summary (metric {metric})")
    models, conditions = in_order(part["model"]), in_order(part["corruption"])
    grids = {
        name: part.pivot(index="model", columns="corruption", values=name).loc[models, conditions].to_numpy(float)
        for name in ("value", "gain", "gain_low", "gain_high")
    }
    figure = change_map(
        np.nan_to_num(grids["gain"] * 100),
        bold(
            [[f"{value:.3f}" for value in row] for row in grids["value"]], sure(grids["gain_low"], grids["gain_high"])
        ),
        x=[title_of(key, short=True) for key in conditions],
        y=[tuned_title(key) for key in models],
        title=f"{METRIC_TITLES[metric]} of every model on every condition",
        colours=f"change over the base, percentage points (positive: {'worse' if metric == 'ece' else 'better'})",
        hover="<b>%{y}</b> on %{x}: %{z:+.1f} points [%{customdata[0]:+.1f}, %{customdata[1]:+.1f}]<extra></extra>",
        customdata=np.dstack([grids["gain_low"] * 100, grids["gain_high"] * 100]),
        height=490,
    )
    return figure.update_layout(margin={"l": 132, "t": 102, "b": 68})
