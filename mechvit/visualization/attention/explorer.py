"""The attention explorer: every head of one or more models over the pictures, in one offline page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.visualization.html_page.page import framed, render, write_whole

from .pattern_packing import Panel, size

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True)
class ExplorerPicture:
    """One image under every condition, and what each model attends to in it."""

    title: str
    """Its label or file name, shown as plain text."""
    pictures: tuple[str, ...]
    """One data URI a condition."""
    coarse: list[list[Panel]]
    """By model, then by condition; patches pooled in blocks."""
    fine: list[list[Panel]] | None = None
    """The same patch by patch, where it may fit."""


@dataclass(frozen=True, kw_only=True)
class AttentionExplorer:
    """Attention of some pictures in some models; shows itself in a notebook, or `save(path)` as one file.

    The page holds each picture once a condition and each pattern as one byte a weight, deflated
    (`analysis.attention_maps.encode`). All pictures are stored with patches pooled in square blocks; those that come
    first are stored patch by patch instead, as many as fit into `max_bytes`. Numbers and rollouts are always made from
    all patches.
    """

    models: tuple[str, ...]
    conditions: tuple[str, ...]
    """Clean first."""
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    rollouts: tuple[str, ...]
    prefix: tuple[str, ...]
    """Names of the tokens before the first patch."""
    grid: tuple[int, int]
    patch_size: int
    """Pixels."""
    block: int
    """Patches a side of a pooled block; 1 where none are pooled."""
    pictures: tuple[ExplorerPicture, ...]
    max_bytes: int
    """Of the stored patterns as text."""
    title: str = "Attention explorer"

    def spec(self) -> dict[str, Any]:
        """What the page's script draws, ready for JSON."""
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
        """The whole page: self-contained and offline."""
        return render("explorer.html.j2", title=self.title, spec=self.spec())

    @checked
    def save(self, path: str | Path) -> Path:
        """Write the page; returns its path."""
        return write_whole(Path(path), self.html())

    def _repr_html_(self) -> str:
        """A notebook's output: the page in a frame of its own."""
        return framed(self.html(), "Attention explorer", 900)
