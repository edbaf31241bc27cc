"""One picture in one or more models: attention, patch lens and the latents that fire most, on one page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from mechvit.visualization.attention.explorer import AttentionExplorer
from mechvit.visualization.html_page.licence_notices import embedded
from mechvit.visualization.html_page.page import Page, escaped_json, picture_uri, render
from mechvit.visualization.style import DARK

from .patch_lens import PatchLensView

DIM = 0.25
"""Brightness of a picture where a latent does not fire."""


@dataclass(frozen=True, kw_only=True)
class ShownLatent:
    """One latent on the picture."""

    index: int
    activation: float
    """Activation where it is strongest."""
    share: float
    """Share of tokens at which it fires, 0 to 1."""
    where: str
    """Place where it is strongest: `row 3, column 5`, or a token before the patches."""
    picture: str
    """Data URI of the picture, bright where the latent fires."""


@dataclass(frozen=True, kw_only=True)
class PicturePage(Page):
    """Everything about one picture; displayed by a notebook, or saved as one file by `save(path)`."""

    models: tuple[str, ...]
    answers: Mapping[str, tuple[tuple[str, float], ...]]
    """Model -> its strongest classes with their probabilities; empty for one without a head."""
    explorer: AttentionExplorer | None = None
    lens: PatchLensView | None = None
    latents: Mapping[str, tuple[ShownLatent, ...]] = field(default_factory=dict)
    """Name of an SAE -> the latents that fire most."""
    missing: tuple[str, ...] = ()
    """Parts of the page that these models do not allow, each with the reason."""
    frame_height: ClassVar[int] = 900

    def __repr__(self) -> str:
        parts = [name for name in ("explorer", "lens") if getattr(self, name) is not None]
        shown = ", ".join([*parts, *self.latents]) or "answers"
        return f"PicturePage({self.title!r} in {', '.join(self.models)}: {shown})"

    def html(self) -> str:
        """Return the whole page: self-contained and offline."""
        return render(
            "picture.html.j2",
            page=self,
            explorer=None if self.explorer is None else self.explorer.spec(),
            lens=None if self.lens is None else self.lens.spec(),
            figures=[] if self.lens is None else [escaped_json(figure) for figure in self.lens.figures()],
            provenance=self.provenance,
            dark=DARK,
            **embedded(*([] if self.lens is None else ["plotly.js"])),
        )


def lit(picture: UInt8[np.ndarray, "3 height width"], heat: Float[np.ndarray, "row column"]) -> str:
    """Return a data URI of a picture that is bright where a map is high, and dim where it is 0.

    Args:
        picture: pixels, cropped to the area that the patches cover.
        heat: one value of at least 0 for each patch; where all are 0 the whole picture is dim.
    """
    most = float(heat.max()) if heat.size else 0.0
    height, width = picture.shape[1] // max(heat.shape[0], 1), picture.shape[2] // max(heat.shape[1], 1)
    scaled = np.kron(heat / most if most else heat, np.ones((height, width)))
    light = DIM + (1 - DIM) * scaled
    return picture_uri((picture[:, : light.shape[0], : light.shape[1]] * light).round().astype(np.uint8))
