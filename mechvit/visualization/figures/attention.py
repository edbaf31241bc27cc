"""Change of attention under corruption by layer: entropy difference (Figures 7 and 8), cosine, squared difference."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from mechvit.arguments import checked
from mechvit.visualization.style import family_of, finish, strongest_of_each, title_of, zero_line

from .table_checks import layer_lines, layer_step, ordered, panels, pick, require

COLUMNS = ("model", "corruption", "layer", "quantity", "value", "low", "high")


def _panels(figure: go.Figure, summary: pd.DataFrame, quantity: str, row: int, unit: str, digits: int) -> None:
    """Fill one row of panels, one per family with its strongest corruption."""
    for col, corruption in enumerate(strongest_of_each(summary["corruption"]), start=1):
        part = ordered(pick(summary, corruption=corruption, quantity=quantity))
        legend = row == 1 and col == 1
        lines = layer_lines(part, "value", own=family_of(corruption), legend=legend, unit=unit, digits=digits)
        figure.add_traces(lines, rows=row, cols=col)


def _titles(summary: pd.DataFrame) -> list[str]:
    return [f"{title_of(key)} against clean" for key in strongest_of_each(summary["corruption"])]


@checked
def entropy_difference(summary: pd.DataFrame) -> go.Figure:
    """Draw Figures 7 and 8: H(corrupted) - H(clean) of attention by layer, in nats (positive: it spreads out).

    Args:
        summary: `attention_summary`; its rows of quantity `entropy_difference` are drawn.

    Raises:
        ValueError: a column is missing, or no row has the quantity.
    """
    require(summary, COLUMNS, "attention_summary")
    require(pick(summary, quantity="entropy_difference"), COLUMNS, "attention_summary (entropy_difference)")
    figure = panels(_titles(summary))
    _panels(figure, summary, "entropy_difference", 1, " nats", 3)
    zero_line(figure)
    figure.update_xaxes(title_text="layer", dtick=layer_step(summary["layer"]))
    label = "H(corrupted) − H(clean), nats<br>(positive = attention spreads out)"
    figure.update_yaxes(title_text=label, row=1, col=1)
    return finish(figure, "Attention entropy: corrupted minus clean", height=430)


@checked
def pattern_change(summary: pd.DataFrame) -> go.Figure:
    """Draw cosine and squared difference between the clean and corrupted attention patterns of each image, by layer.

    Args:
        summary: `attention_summary`; its rows of the quantities `cosine` and `squared_difference` are drawn.

    Raises:
        ValueError: a column is missing, or no row has the quantities.
    """
    require(summary, COLUMNS, "attention_summary")
    part = summary[summary["quantity"].isin(["cosine", "squared_difference"])]
    require(part, COLUMNS, "attention_summary (cosine, squared_difference)")
    figure = panels(_titles(summary), 2, shared_xaxes=True, vertical_spacing=0.1)
    _panels(figure, part, "cosine", 1, "", 4)
    _panels(figure, part, "squared_difference", 2, "", 5)
    figure.update_yaxes(title_text="cosine of the rows<br>(1 = unchanged)", row=1, col=1)
    figure.update_yaxes(title_text="squared difference<br>(0 = unchanged)", row=2, col=1)
    figure.update_xaxes(dtick=layer_step(summary["layer"]))
    figure.update_xaxes(title_text="layer", row=2)
    finish(figure, "Change of attention patterns under corruption", height=600)
    return figure.update_layout(legend_y=1.08)
