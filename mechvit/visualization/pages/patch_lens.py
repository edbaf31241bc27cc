"""The logit lens over the picture: the class read from every patch at every layer, models side by side."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from mechvit.visualization.figures.lens import image_trajectories
from mechvit.visualization.html_page.csv_text import csv_text
from mechvit.visualization.html_page.licence_notices import embedded
from mechvit.visualization.html_page.page import Page, escaped_json, render
from mechvit.visualization.html_page.plotly_json import figure_json
from mechvit.visualization.style import DARK

if TYPE_CHECKING:
    from mechvit.analysis.lenses.patch_lens import PatchLens


@dataclass(frozen=True, kw_only=True)
class LensPicture:
    """One image under every condition."""

    title: str
    """Its label or file name, displayed as plain text."""
    pictures: tuple[str, ...]
    """One data URI per condition."""
    lenses: tuple[PatchLens, ...]
    """One lens per model, with the conditions as its batch."""
    trajectories: pd.DataFrame
    """model, condition, layer, class, probability: class probabilities of the whole image, layer by layer."""


@dataclass(frozen=True, kw_only=True)
class PatchLensView(Page):
    """Patch-level lenses of some pictures; displayed by a notebook, or saved as one offline file by `save(path)`."""

    models: tuple[str, ...]
    conditions: tuple[str, ...]
    """Titles of the conditions, clean first."""
    names: Mapping[int, str]
    """Names of the classes, displayed as plain text."""
    grid: tuple[int, int]
    patch_size: int
    """Side of a patch in pixels."""
    pictures: tuple[LensPicture, ...]
    title: str = "Logit lens, patch by patch"
    frame_height: ClassVar[int] = 900

    def spec(self) -> dict[str, Any]:
        """Return the data for the page's script, ready for JSON, with names of only the classes that patches show."""
        seen = np.unique(np.concatenate([lens.classes.ravel() for p in self.pictures for lens in p.lenses]))
        return {
            "models": self.models,
            "conditions": self.conditions,
            "names": [str(self.names[int(index)]) for index in seen],
            "layers": int(self.pictures[0].lenses[0].classes.shape[1]),
            "top": int(self.pictures[0].lenses[0].classes.shape[3]),
            "grid": self.grid,
            "patch": self.patch_size,
            "pictures": [
                {
                    "title": picture.title,
                    "pictures": picture.pictures,
                    "table": csv_text(picture.trajectories),
                    "panels": [
                        [_packed(lens, seen, at) for at in range(len(self.conditions))] for lens in picture.lenses
                    ],
                }
                for picture in self.pictures
            ],
        }

    def figures(self) -> list[str]:
        """Return the trajectories of each picture as the JSON of a plotly figure."""
        figures = [image_trajectories(picture.trajectories) for picture in self.pictures]
        return [figure_json(figure.update_layout(title=None, margin_t=32, height=380)) for figure in figures]

    def html(self) -> str:
        """Return the whole page: self-contained, offline, 4.8 MB of plotly.js and the data."""
        return render(
            "patch_lens.html.j2",
            title=self.title,
            spec=self.spec(),
            provenance=self.provenance,
            figures=list(map(escaped_json, self.figures())),
            dark=DARK,
            **embedded("plotly.js"),
        )


def _packed(lens: PatchLens, seen: np.ndarray, at: int) -> dict[str, str]:
    """Deflate indices into `seen` as uint16, and round(255 sqrt(probability)) as bytes: [layer, patch, rank]."""
    places = np.searchsorted(seen, lens.classes[at].numpy()).astype("<u2")
    codes = np.rint(255 * np.sqrt(lens.probability[at].numpy())).astype(np.uint8)
    deflated = (base64.b64encode(zlib.compress(part.tobytes())).decode("ascii") for part in (places, codes))
    return dict(zip(("classes", "probability"), deflated, strict=True))
