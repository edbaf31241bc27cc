"""Attention patterns in circuitsvis, as an offline page or a notebook's output."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from mechvit.visualization.html_page.licence_notices import embedded
from mechvit.visualization.html_page.page import Page, render

from .pattern_pooling import pooling_factor


@dataclass(frozen=True, kw_only=True)
class AttentionPanel:
    """Content of one panel: one model on one image."""

    title: str
    """Title above the panel, as plain text."""
    patterns: Float[np.ndarray, "layers heads query key"]
    """Pooled attention; each row sums to one."""
    picture: str | None = None
    """The image as a data URI, drawn under the token grid."""


@dataclass(frozen=True, kw_only=True)
class AttentionView(Page):
    """Panels of attention with a common choice of layer; shown by a notebook, or saved as a file by `save(path)`."""

    panels: tuple[AttentionPanel, ...]
    tokens: tuple[str, ...]
    """Names of the pooled tokens."""
    grid: tuple[int, int]
    """Rows and columns of the pooled patches."""
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    title: str = "Attention"
    frame_height: ClassVar[int] = 780

    def beside(self, *others: AttentionView) -> AttentionView:
        """Return one view with the panels of all, linked; rows of provenance with several texts name each once.

        Raises:
            ValueError: the views differ in tokens, layers or heads.
        """
        for other in others:
            if (other.tokens, other.layers, other.heads) != (self.tokens, self.layers, self.heads):
                raise ValueError(
                    "views beside each other must share tokens, layers and heads; got "
                    f"{len(self.tokens)} tokens, layers {self.layers}, heads {self.heads} and "
                    f"{len(other.tokens)} tokens, layers {other.layers}, heads {other.heads}: "
                    "make both with the same arguments"
                )
        views = (self, *others)
        titles = dict.fromkeys(title for view in views for title in view.provenance)
        texts = {title: dict.fromkeys(v.provenance[title] for v in views if title in v.provenance) for title in titles}
        return replace(
            self,
            panels=tuple(panel for view in views for panel in view.panels),
            provenance={title: ", ".join(own) for title, own in texts.items()},
        )

    def spec(self) -> dict[str, Any]:
        """Return the data for the page's script, ready for JSON: patterns as base64 of uint16."""
        return attention_spec(self, {"": range(len(self.panels))})

    def html(self) -> str:
        """Return the whole page: self-contained, offline, 1.3 MB of script and the data."""
        return render(
            "attention.html.j2",
            title=self.title,
            spec=self.spec(),
            provenance=self.provenance,
            **embedded("circuitsvis"),
        )


def attention_spec(view: AttentionView, sets: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return a view as JSON, with its panels in named sets of which one is displayed at a time."""
    scale = [float(panel.patterns.max()) or 1.0 for panel in view.panels]
    return {
        "tokens": view.tokens,
        "grid": view.grid,
        "layers": view.layers,
        "heads": [f"Head {head}" for head in view.heads],
        "sets": [{"title": title, "panels": list(chosen)} for title, chosen in sets.items()],
        "panels": [
            {
                "title": panel.title,
                "picture": panel.picture,
                "scale": top,
                "layers": [_packed(layer / top) for layer in panel.patterns],
            }
            for panel, top in zip(view.panels, scale, strict=True)
        ],
    }


def _packed(unit: np.ndarray) -> str:
    """Encode values in [0, 1] as base64 of little-endian uint16."""
    return base64.b64encode(np.rint(unit * 65535).astype("<u2").tobytes()).decode("ascii")


def pooled_grid(grid: tuple[int, int], n_prefix: int, max_tokens: int | None) -> tuple[int, int]:
    """Return the rows and columns of blocks after pooling."""
    factor = pooling_factor(grid, n_prefix, max_tokens)
    return -(-grid[0] // factor), -(-grid[1] // factor)
