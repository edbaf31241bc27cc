"""Figures of a run with the tables that they draw, for the report and for exported files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .claims_table import claim_effects
from .gain_section import gain_section
from .sections import CLAIMS, SECTIONS, FigureSpec, Section

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from .run_results import RunResults


@dataclass(frozen=True, kw_only=True)
class RunFigure:
    """One figure of a run."""

    spec: FigureSpec
    figure: go.Figure
    table: pd.DataFrame
    """The data that the figure shows, tidy."""
    reading: list[str]
    """Paragraphs under the figure."""


def draw_figure(run: RunResults, spec: FigureSpec) -> RunFigure | None:
    """Draw one figure; None if the run has no rows for it.

    Raises:
        ValueError: its table lacks a column.
    """
    if spec is CLAIMS:
        read = claim_effects(run.claims)
        read = read if len(read) and read["value"].notna().any() else read.iloc[:0]
    elif run.has(spec.table):
        read = run.table(spec.table, spec.columns)
    else:
        return None
    table = spec.summarise(read) if spec.summarise and len(read) else read
    if table.empty:
        return None
    return RunFigure(spec=spec, figure=spec.figure(table), table=table, reading=spec.reading(table))


def sections(run: RunResults) -> tuple[Section, ...]:
    """Return the sections shown for a run, in order, with the section on its gain if the run analysed it."""
    gain = gain_section(run)
    return (*SECTIONS, gain) if gain else SECTIONS


def figures_of_run(run: RunResults) -> Iterator[RunFigure]:
    """Yield every figure that the run has rows for: the claims, then each section's."""
    for spec in (CLAIMS, *(spec for section in sections(run) for spec in section.figures)):
        if figure := draw_figure(run, spec):
            yield figure
