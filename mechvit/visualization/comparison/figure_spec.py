"""A figure of a comparison's report with its definition, and the heads that figures are drawn for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import plotly.graph_objects as go

from mechvit.visualization.figures import comparisons as draw
from mechvit.visualization.report.sections import FigureSpec

from .definitions import DEFINITIONS, HEAD_TITLES


def spec(id: str, table: str, definition: str, source: str, **more: Any) -> FigureSpec:
    """Return a figure's specification, defined by an entry of `DEFINITIONS`."""
    return FigureSpec(id=id, table=table, definition=DEFINITIONS[definition], source=source, **more)


def drawing(about: dict[str, Any], what: str = "") -> tuple[Callable[..., go.Figure], Callable[..., go.Figure]]:
    """Return `grouped_dots` and `layer_curves` with each tuned model's colour by its place in the comparison.

    Args:
        about: the comparison.
        what: words before each model's name in the figures' tables.
    """
    order = [f"{what}{tuned}" for tuned in about["tuned"]]
    return partial(draw.grouped_dots, order=order), partial(draw.layer_curves, order=order)


def through(about: dict[str, Any], head: str) -> str:
    """Return what a figure's title says of its head, where there are several."""
    return f", through {HEAD_TITLES[head]}" if len(heads_of(about)) > 1 else ""


def heads_of(about: dict[str, Any]) -> list[str]:
    """Return the heads through which some pair was read, in order."""
    return list(dict.fromkeys(head for heads in about["heads"].values() for head in heads))
