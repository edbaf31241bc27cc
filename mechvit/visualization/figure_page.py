"""Single figures as pages that need no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .page import CSP, write_whole

if TYPE_CHECKING:
    import plotly.graph_objects as go

_HEAD = '<meta charset="utf-8" />'
_POLICY = f'<meta http-equiv="Content-Security-Policy" content="{CSP}"><meta name="generator" content="mechvit">'


def write_figure_pages(figures: Mapping[str, go.Figure], folder: Path) -> int:
    """Write each figure as FOLDER/NAME.html, with plotly inside and the policy of all pages; returns how many."""
    for name, figure in figures.items():
        page = figure.to_html(include_plotlyjs=True, config={"displaylogo": False, "showSendToCloud": False})
        assert _HEAD in page
        write_whole(folder / f"{name}.html", page.replace(_HEAD, _HEAD + _POLICY, 1))
    return len(figures)
