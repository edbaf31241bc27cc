"""The images that a view displays: pixels in [0, 1], captions, and pictures under each corruption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.visualization.html_page.page import picture_uri

if TYPE_CHECKING:
    from torch import Tensor

    from mechvit.data.batches import ImageBatch
    from mechvit.models import HookedViT


def check_same_layout(models: Mapping[str, HookedViT], *names: str) -> None:
    """Refuse models that cannot be displayed over the same pictures.

    Raises:
        ValueError: there is no model, or one differs from the first in its config's `names`, its dtype, or the way in
            which it resizes pictures.
    """
    from mechvit.models.checkpoints.checks import check_one_dtype
    from mechvit.models.processors.preprocessing import check_alike

    if not models:
        raise ValueError('models must map a title to a HookedViT, as in {"base": model}; got none')
    (first, model), *others = models.items()
    for title, other in others:
        differ = [name for name in names if getattr(model.cfg, name) != getattr(other.cfg, name)]
        if differ:
            got = "; ".join(f"{name} {getattr(model.cfg, name)} and {getattr(other.cfg, name)}" for name in differ)
            raise ValueError(
                f"models beside each other must share {', '.join(names)}; {first!r} and {title!r} have {got}: "
                "make one view of each"
            )
    check_one_dtype({title: model.cfg for title, model in models.items()})
    check_alike({title: model.image_processor for title, model in models.items()}, "a view of models on one picture")


def captioned_images(model: HookedViT, images: Any, limit: int) -> tuple[ImageBatch, list[str]]:
    """Return the first `limit` images and their captions: the given names, or those of their labels.

    Args:
        model: the model whose image processor, device and class names are used.
        images: a `datasets.Dataset`, an `ImageBatch`, or a mapping of captions to pictures as
            `mechvit.data.open_picture` takes them (paths, PIL images, arrays), whose last parts are the names of their
            files.
        limit: largest number of images.

    Raises:
        ValueError: there is no image, the limit is below one, or pictures are given and the model has no image
            processor.
    """
    import torch

    from mechvit.analysis.inputs import image_batches
    from mechvit.data import open_pictures, unit_pixels
    from mechvit.data.batches import ImageBatch
    from mechvit.models.processors.preprocessing import resizing_key

    if limit < 1:
        raise ValueError(f"limit must be at least 1 picture; got {limit}")
    if isinstance(images, Mapping):
        if model.image_processor is None:
            raise ValueError("pictures need the model's image processor, and this model has none: give an ImageBatch")
        named = dict(list(images.items())[:limit])
        if not named:
            raise ValueError("there is no image to look at; give at least one")
        opened = open_pictures({str(name): image for name, image in named.items()})
        pixels = torch.from_numpy(unit_pixels([*opened.values()], model.image_processor))
        ids = torch.arange(len(named))
        files = tuple(Path(str(name)).name for name in named)  # by which a picture's partner in a folder is found
        key = resizing_key(model.image_processor)
        batch = ImageBatch(pixels.float() / 255, torch.full_like(ids, -1), ids, key, files)
        return next(image_batches(model, batch, limit)), [str(name) for name in named]
    batch = next(image_batches(model, images, limit))
    names: Sequence[str] | Mapping[int, str] = model.cfg.id2label
    if not isinstance(images, ImageBatch):
        names = getattr(images.features["label"], "names", names)
    known = dict(names.items() if isinstance(names, Mapping) else enumerate(names))
    return batch, [
        str(known.get(label, f"image {image_id}"))
        for label, image_id in zip(batch.labels.tolist(), batch.image_ids.tolist(), strict=True)
    ]


def conditions_of(corruptions: Sequence[Any]) -> list[Any]:
    """Return clean, then each corruption once."""
    from mechvit.data.conditions import as_condition
    from mechvit.data.corruption_spec import CLEAN

    wanted = [corruptions] if isinstance(corruptions, str) else corruptions
    return list(dict.fromkeys([CLEAN, *map(as_condition, wanted)]))


@dataclass(frozen=True, kw_only=True)
class ConditionedImage:
    """One image under every condition."""

    title: str
    label: int
    """Class id; -1 if unknown."""
    pictures: tuple[str, ...]
    """Data URIs, cropped to the area that the patches cover."""
    pixel_values: tuple[Tensor, ...]
    """Input of each model, [condition, 3, height, width]."""


def conditioned_images(
    models: Mapping[str, HookedViT], batch: ImageBatch, titles: Sequence[str], conditions: Sequence[Any], seed: int
) -> Iterator[ConditionedImage]:
    """Yield each image as it is displayed, and as each model receives it."""
    import torch

    from mechvit.analysis.condition_images import bound, check_same_image, shown
    from mechvit.analysis.inputs import pixel_values

    applied = [bound(condition, models) for condition in conditions]
    if len(models) > 1:
        check_same_image(applied, "a view of several models on one picture", models)
    cfg = next(iter(models.values())).cfg
    height, width = (side * cfg.patch_size for side in cfg.grid)
    for place, title in enumerate(titles):
        alone = batch.take(slice(place, place + 1))
        clean = {name: alone.to(model.cfg.device) for name, model in models.items()}
        seen = [shown(models, clean, condition, seed=seed) for condition in applied]
        pictures = (next(iter(own.values())).images[0, :, :height, :width] for own in seen)
        yield ConditionedImage(
            title=title,
            label=int(alone.labels),
            pictures=tuple(picture_uri((image * 255).round().byte().cpu().numpy()) for image in pictures),
            pixel_values=tuple(
                torch.cat([pixel_values(model, own[name]) for own in seen]) for name, model in models.items()
            ),
        )


@contextmanager
def error_context(model: str, image: str, conditions: Sequence[str]) -> Iterator[None]:
    """Add to an error the model, the picture and the conditions, which are the batch's entries."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{model!r} on the picture {image!r} ({', '.join(conditions)}): {error}") from error


def condition_titles(conditions: Sequence[Any]) -> tuple[str, ...]:
    """Return `clean`, then the corruptions' names in prose."""
    return ("clean", *(condition.title for condition in conditions[1:]))
