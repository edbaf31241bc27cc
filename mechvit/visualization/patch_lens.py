"""The logit lens over the picture: what every patch would be classified as at every layer, models beside each other."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mechvit.arguments import checked

from .csv_text import csv_text
from .figure_json import figure_json
from .figures.lens import image_trajectories
from .notices import licences, notices
from .page import escaped_json, framed, plotly_script, render, write_whole
from .shown import ShownImage, about, alike, chosen_images, condition_titles, conditions_of, shown_images
from .style import DARK

if TYPE_CHECKING:
    from ..analysis.patch_lens import PatchLens
    from ..data.spec import Corruption
    from ..models import HookedViT


@dataclass(frozen=True, kw_only=True)
class LensPicture:
    """One image under every condition."""

    title: str
    """Its label or file name, shown as plain text."""
    pictures: tuple[str, ...]
    """One data URI a condition."""
    lenses: tuple[PatchLens, ...]
    """One a model; its batch are the conditions."""
    trajectories: pd.DataFrame
    """model, condition, layer, class, probability: what the whole image is classified as, layer by layer."""


@dataclass(frozen=True, kw_only=True)
class PatchLensView:
    """Patch-level lenses of some pictures; shows itself in a notebook, or `save(path)` as one offline file."""

    models: tuple[str, ...]
    conditions: tuple[str, ...]
    """Clean first."""
    names: Mapping[int, str]
    """Of the classes, shown as plain text."""
    grid: tuple[int, int]
    patch_size: int
    """Pixels."""
    pictures: tuple[LensPicture, ...]
    title: str = "Logit lens, patch by patch"

    def spec(self) -> dict[str, Any]:
        """What the page's script draws, ready for JSON: only the classes that some patch shows are named."""
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
        """The trajectories of each picture as a plotly figure's JSON."""
        figures = [image_trajectories(picture.trajectories) for picture in self.pictures]
        return [figure_json(figure.update_layout(title=None, margin_t=32, height=380)) for figure in figures]

    def html(self) -> str:
        """The whole page: self-contained, offline, 4.8 MB of plotly.js and the data."""
        owed = notices("plotly.js")
        return render(
            "patch_lens.html.j2",
            title=self.title,
            spec=self.spec(),
            figures=list(map(escaped_json, self.figures())),
            dark=DARK,
            plotly=plotly_script(),
            notices=owed,
            licences=licences(owed),
        )

    def save(self, path: str | Path) -> Path:
        """Write the page; returns its path."""
        return write_whole(Path(path), self.html())

    def _repr_html_(self) -> str:
        """A notebook's output: the page in a frame of its own."""
        return framed(self.html(), self.title, 900)


def _packed(lens: PatchLens, seen: np.ndarray, at: int) -> dict[str, str]:
    """Places in `seen` as uint16, and round(255 sqrt(probability)) as bytes: [layer, patch, rank], deflated."""
    places = np.searchsorted(seen, lens.classes[at].numpy()).astype("<u2")
    codes = np.rint(255 * np.sqrt(lens.probability[at].numpy())).astype(np.uint8)
    deflated = (base64.b64encode(zlib.compress(part.tobytes())).decode("ascii") for part in (places, codes))
    return dict(zip(("classes", "probability"), deflated, strict=True))


@checked
def patch_lens_view(
    models: Mapping[str, HookedViT],
    images: Any,
    corruptions: Sequence[Corruption | str] = ("gaussian_blur_4",),
    *,
    top: int = 5,
    followed: int = 3,
    apply_ln: bool = True,
    limit: int = 8,
    seed: int = 0,
    title: str = "Logit lens, patch by patch",
) -> PatchLensView:
    """Predicted class and probability of every patch at every layer, clean beside corrupted, models beside each other.

        patch_lens_view({"base": base, "tuned": tuned}, images).save("lens.html")

    What a patch's prediction means for each kind of head: `analysis.patch_lens`. Above the pictures stand the
    trajectories of the image's own classes through the layers (`analysis.class_trajectories`).

    Args:
        models: a title for each; they must share their patches and classes.
        images: a `datasets.Dataset`, an `ImageBatch`, or a mapping of captions to pictures as
            `mechvit.data.open_picture` takes them (paths, PIL images, arrays).
        corruptions: keys such as "gaussian_blur_4", each shown beside clean; none is allowed.
        top: classes kept of each patch.
        followed: classes whose trajectories are drawn: the label, where it is known, and the strongest predictions.
        apply_ln: False gives the bare head, without the final LayerNorm.
        limit: at most this many pictures.
        seed: of the noise.
        title: the page's title.

    Raises:
        ValueError: a model without classes, models that differ, no image, or an unknown corruption, all before the
            models run; or logits that are not finite.
    """
    from mechvit.analysis.patch_lens import patch_lens, require_classifier

    alike(models, "grid", "image_size", "n_layers", "n_classes")
    first = next(iter(models.values()))
    for name, model in models.items():
        require_classifier(model)
        if dict(model.cfg.id2label) != dict(first.cfg.id2label):
            raise ValueError(
                f"models beside each other must have the same classes; {name!r} has others: one view of each"
            )
    if top < 1 or followed < 1:
        raise ValueError(f"top and followed must be at least 1; got {top} and {followed}")
    conditions = conditions_of(corruptions)
    batch, titles = chosen_images(first, images, limit)
    names = condition_titles(conditions)
    pictures = []
    for image in shown_images(models, batch, titles, conditions, seed):
        lenses = []
        for (name, model), pixels in zip(models.items(), image.pixel_values, strict=True):
            with about(name, image.title, names):
                lenses.append(patch_lens(model, pixels, top=top, apply_ln=apply_ln))
        lines = _trajectories(models, image, followed, apply_ln, names)
        pictures.append(
            LensPicture(title=image.title, pictures=image.pictures, lenses=tuple(lenses), trajectories=lines)
        )
    return PatchLensView(
        models=tuple(map(str, models)),
        conditions=names,
        names={index: str(name) for index, name in first.cfg.id2label.items()},
        grid=first.cfg.grid,
        patch_size=first.cfg.patch_size,
        pictures=tuple(pictures),
        title=title,
    )


def _trajectories(
    models: Mapping[str, HookedViT], image: ShownImage, followed: int, apply_ln: bool, conditions: Sequence[str]
) -> pd.DataFrame:
    """The image's label, where it is known, and its strongest predictions, in every model and condition."""
    import torch

    from mechvit.analysis.patch_lens import class_trajectories

    inputs = dict(zip(models, image.pixel_values, strict=True))
    with torch.inference_mode():
        strongest = sum(model(inputs[name]).softmax(-1).sum(0).float().cpu() for name, model in models.items())
    ranked = strongest.argsort(descending=True).tolist()
    chosen = list(dict.fromkeys([image.label, *ranked] if image.label >= 0 else ranked))[:followed]
    frames = [
        class_trajectories(model, inputs[name], chosen, apply_ln=apply_ln).to_frame(model=str(name))
        for name, model in models.items()
    ]
    frame = pd.concat(frames, ignore_index=True)
    if image.label >= 0:
        own = frame["class"].iloc[0]
        frame["class"] = frame["class"].replace(own, f"{own} (label)")
    return frame.assign(condition=frame.pop("image").map(dict(enumerate(conditions))))
