"""A run's figures, each with what it was drawn from: what the report and the exported files share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .claims_table import claim_effects
from .gain_section import gain_section
from .sections import CLAIMS, SECTIONS, Plot, Section

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from .run_folder import Run


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure of a run."""

    plot: Plot
    figure: go.Figure
    table: pd.DataFrame
    """What the figure shows, tidy."""
    reading: list[str]
    """Paragraphs."""


def drawing(run: Run, plot: Plot) -> Drawing | None:
    """Draw one figure; None where the run has no rows for it.

    Raises:
        ValueError: its table lacks a column.
    """
    if plot is CLAIMS:
        read = claim_effects(run.claims)
        read = read if len(read) and read["value"].notna().any() else read.iloc[:0]
    elif run.has(plot.table):
        read = run.table(plot.table, plot.columns)
    else:
        return None
    table = plot.drawn(read) if plot.drawn and len(read) else read
    if table.empty:
        return None
    return Drawing(plot=plot, figure=plot.figure(table), table=table, reading=plot.reading(table))


def sections(run: Run) -> tuple[Section, ...]:
    """What is shown of a run, in order: where its gain lives too, if it was taken apart."""
    gain = gain_section(run)
    return (*SECTIONS, gain) if gain else SECTIONS


def drawings(run: Run) -> Iterator[Drawing]:
    """Every figure that the run has rows for: the claims, then each section's."""
    for plot in (CLAIMS, *(plot for section in sections(run) for plot in section.plots)):
        if drawn := drawing(run, plot):
            yield drawn
