"""The logit lens at every patch of some pictures, in one or more models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from mechvit.arguments import checked
from mechvit.visualization.pages.patch_lens import LensPicture, PatchLensView

from .example_images import (
    ConditionedImage,
    captioned_images,
    check_same_layout,
    condition_titles,
    conditioned_images,
    conditions_of,
    error_context,
)
from .page_provenance import page_provenance

if TYPE_CHECKING:
    from mechvit.data.corruption_spec import Condition
    from mechvit.models import HookedViT


@checked
def patch_lens_view(
    models: Mapping[str, HookedViT],
    images: Any,
    corruptions: Sequence[Condition | str] = ("gaussian_blur_4",),
    *,
    top: int = 5,
    followed: int = 3,
    apply_ln: bool = True,
    limit: int = 8,
    seed: int = 0,
    title: str = "Logit lens, patch by patch",
) -> PatchLensView:
    """Show the predicted class and its probability for every patch at every layer, by condition and model.

        patch_lens_view({"base": base, "tuned": tuned}, images).save("lens.html")

    For the meaning of a patch's prediction with each kind of head see `analysis.patch_lens`. Above the pictures, the
    page shows the trajectories of the whole image's class probabilities through the layers
    (`analysis.class_trajectories`).

    Args:
        models: models by title; all must have the same patches and classes.
        images: a `datasets.Dataset`, an `ImageBatch`, or a mapping of captions to pictures as
            `mechvit.data.open_picture` takes them (paths, PIL images, arrays).
        corruptions: keys such as "gaussian_blur_4", each shown beside clean; may be empty.
        top: number of classes kept for each patch.
        followed: number of classes whose trajectories are drawn: the label, if known, and the strongest predictions.
        apply_ln: whether to apply the final LayerNorm before the head.
        limit: largest number of pictures.
        seed: seed of the corruptions' noise.
        title: the page's title.

    Raises:
        ValueError: a model has no classes, the models differ, there is no image, or a corruption is unknown (all found
            before the models run); or logits are not finite.
    """
    from mechvit.analysis.lenses.patch_lens import patch_lens, require_classifier

    check_same_layout(models, "grid", "image_size", "n_layers", "n_classes")
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
    batch, titles = captioned_images(first, images, limit)
    names = condition_titles(conditions)
    pictures = []
    for image in conditioned_images(models, batch, titles, conditions, seed):
        lenses = []
        for (name, model), pixels in zip(models.items(), image.pixel_values, strict=True):
            with error_context(name, image.title, names):
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
        provenance=page_provenance(models, images),
    )


def _trajectories(
    models: Mapping[str, HookedViT], image: ConditionedImage, followed: int, apply_ln: bool, conditions: Sequence[str]
) -> pd.DataFrame:
    """Return the trajectories of the label, if known, and the strongest predictions, in every model and condition."""
    import torch

    from mechvit.analysis.lenses.patch_lens import layer_probabilities, trajectories_of

    inputs = zip(models.items(), image.pixel_values, strict=True)
    with torch.inference_mode():
        found = {name: layer_probabilities(model, pixels, apply_ln=apply_ln) for (name, model), pixels in inputs}
        strongest = torch.stack([own.sum(0).float().cpu() for own, _ in found.values()]).sum(0)
    ranked = strongest.argsort(descending=True).tolist()
    chosen = list(dict.fromkeys([image.label, *ranked] if image.label >= 0 else ranked))[:followed]
    frames = [
        trajectories_of(model, found[name][1], chosen).to_frame(model=str(name)) for name, model in models.items()
    ]
    frame = pd.concat(frames, ignore_index=True)
    if image.label >= 0:
        own = frame["class"].iloc[0]
        frame["class"] = frame["class"].replace(own, f"{own} (label)")
    return frame.assign(condition=frame.pop("image").map(dict(enumerate(conditions))))
