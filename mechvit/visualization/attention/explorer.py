"""The attention explorer: every head of one or more models over the pictures, in one offline page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mechvit.visualization.html_page.page import Page, render

from .pattern_packing import Panel, size


@dataclass(frozen=True, kw_only=True)
class ExplorerPicture:
    """One image under every condition, with each model's attention."""

    title: str
    """Its label or file name, displayed as plain text."""
    pictures: tuple[str, ...]
    """One data URI per condition."""
    coarse: list[list[Panel]]
    """Panels by model, then by condition, with patches pooled in blocks."""
    fine: list[list[Panel]] | None = None
    """The same panels patch by patch, if they may fit."""


@dataclass(frozen=True, kw_only=True)
class AttentionExplorer(Page):
    """Attention of several models on some pictures; displayed by a notebook, or saved as one file by `save(path)`.

    The page holds each picture once per condition, and each pattern with one byte per weight, deflated
    (`mechvit.analysis.attention.maps.encode`). Pictures are stored with patches pooled in square blocks, except the
    first ones, as many as fit into `max_bytes`, which are stored patch by patch. Statistics and rollouts are always
    computed from all patches.
    """

    models: tuple[str, ...]
    conditions: tuple[str, ...]
    """Titles of the conditions, clean first."""
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    rollouts: tuple[str, ...]
    prefix: tuple[str, ...]
    """Names of the tokens before the first patch."""
    grid: tuple[int, int]
    patch_size: int
    """Side of a patch in pixels."""
    block: int
    """Patches per side of a pooled block; 1 without pooling."""
    pictures: tuple[ExplorerPicture, ...]
    max_bytes: int
    """Largest total size of the stored patterns as text, in bytes."""
    title: str = "Attention explorer"
    frame_height: ClassVar[int] = 900

    def spec(self) -> dict[str, Any]:
        """Return the data for the page's script, ready for JSON."""
        room = self.max_bytes - sum(size(picture.coarse) for picture in self.pictures)
        pictures = []
        for picture in self.pictures:
            fine = picture.fine if room >= 0 else None
            room = room - size(fine) + size(picture.coarse) if fine else -1
            fits = fine is not None and room >= 0
            chosen = {"block": 1, "panels": fine} if fits else {"block": self.block, "panels": picture.coarse}
            pictures.append({"title": picture.title, "pictures": picture.pictures, **chosen})
        return {
            "models": self.models,
            "conditions": self.conditions,
            "layers": self.layers,
            "heads": self.heads,
            "rollouts": self.rollouts,
            "prefix": self.prefix,
            "grid": self.grid,
            "patch": self.patch_size,
            "pictures": pictures,
        }

    def html(self) -> str:
        """Return the whole page: self-contained and offline."""
        return render("explorer.html.j2", title=self.title, spec=self.spec(), provenance=self.provenance)
