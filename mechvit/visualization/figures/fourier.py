"""Heat map of the error under each Fourier wave."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import GRID, INK, PAPER, RAMPS, finish, in_order, title_of, tuned_title

from .table_checks import panels, pick, require

COLUMNS = ("model", "vertical", "horizontal", "error", "low", "high")
_NOISE = RAMPS["gaussian_noise"][0]
COLOUR_SCALE = [[0, GRID], [1 / 3, _NOISE[0]], [2 / 3, _NOISE[1]], [1, _NOISE[2]]]
"""Colour scale from no error to the largest."""


@checked
def fourier_map(sensitivity: pd.DataFrame) -> go.Figure:
    """Draw the error under each wave, one panel per model, with the zero frequency in the middle.

    Args:
        sensitivity: `FourierSensitivity.to_frame` of every model, one row per model and wave.

    Raises:
        ValueError: a column is missing or the table is empty.
    """
    require(sensitivity, COLUMNS, "fourier_sensitivity")
    models = in_order(sensitivity["model"])
    figure = panels([tuned_title(model) for model in models], spacing=0.04)
    for col, model in enumerate(models, start=1):
        part = pick(sensitivity, model=model)
        wide = {
            name: part.pivot(index="vertical", columns="horizontal", values=name) for name in ("error", "low", "high")
        }
        error = wide["error"]
        heat = go.Heatmap(
            z=error.to_numpy(),
            x=error.columns.to_numpy(),
            y=error.index.to_numpy(),
            customdata=pd.concat([wide["low"], wide["high"]], axis=1)
            .to_numpy()
            .reshape(len(error), 2, -1)
            .swapaxes(1, 2),
            coloraxis="coloraxis",
            name=title_of(model),
            hovertemplate=f"<b>{title_of(model)}</b> %{{x}} across, %{{y}} down: error %{{z:.3f}} "
            "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
        )
        figure.add_trace(heat, row=1, col=col)
        figure.update_xaxes(title_text="across (cycles per image)", row=1, col=col)
    finish(figure, "Sensitivity to each Fourier wave", height=420, legend=False)
    figure.update_traces(hoverlabel={"bgcolor": PAPER, "font": {"color": INK}})
    figure.update_xaxes(matches="x", constrain="domain", row=1)
    figure.update_yaxes(showgrid=False, constrain="domain", scaleanchor="x", row=1)
    figure.update_yaxes(title_text="down (cycles per image)", row=1, col=1)
    largest = float(sensitivity["error"].max()) or 1.0
    bar = {"title": {"text": "error (fraction)"}, "thickness": 12, "outlinewidth": 0}
    return figure.update_layout(
        coloraxis={"colorscale": COLOUR_SCALE, "cmin": 0, "cmax": largest, "colorbar": bar}, margin={"r": 90}
    )
