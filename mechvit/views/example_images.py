"""The few images that a view shows: pixels in [0, 1], captions, and pictures under each corruption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mechvit.visualization.html_page.page import picture_uri

if TYPE_CHECKING:
    from torch import Tensor

    from mechvit.data.batches import ImageBatch
    from mechvit.models import HookedViT


def check_same_layout(models: Mapping[str, HookedViT], *names: str) -> None:
    """Check that the models can be laid over the same pictures.

    Raises:
        ValueError: there is none, or one differs from the first in its config's `names`, computes in another dtype, or
            resizes pictures otherwise.
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
    """The first `limit` images with their captions: the names given with them, or those of their labels.

    Args:
        model: gives the image processor, the device and class names.
        images: a `datasets.Dataset`, an `ImageBatch`, or a mapping of captions to pictures as
            `mechvit.data.open_picture` takes them (paths, PIL images, arrays).
        limit: at most this many.

    Raises:
        ValueError: no image, a limit below one, or pictures without an image processor.
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
        batch = ImageBatch(pixels.float() / 255, torch.full_like(ids, -1), ids, resizing_key(model.image_processor))
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
    """Clean, then each corruption once."""
    from mechvit.data.corruption_spec import CLEAN, as_corruption

    wanted = [corruptions] if isinstance(corruptions, str) else corruptions
    return list(dict.fromkeys([CLEAN, *map(as_corruption, wanted)]))


@dataclass(frozen=True, kw_only=True)
class ConditionedImage:
    """One image under every condition."""

    title: str
    label: int
    """Its class id; -1 where none is known."""
    pictures: tuple[str, ...]
    """Data URIs, cut to what the patches cover."""
    pixel_values: tuple[Tensor, ...]
    """What each model takes, [condition, 3, height, width]."""


def conditioned_images(
    models: Mapping[str, HookedViT], batch: ImageBatch, titles: Sequence[str], conditions: Sequence[Any], seed: int
) -> Iterator[ConditionedImage]:
    """Each image as it is shown, and as each model takes it, one after the other."""
    import torch

    from mechvit.analysis.inputs import corrupted, pixel_values

    cfg = next(iter(models.values())).cfg
    height, width = (side * cfg.patch_size for side in cfg.grid)
    for place, title in enumerate(titles):
        alone = batch.take(slice(place, place + 1))
        seen = [corrupted(alone, c, seed=seed).images[0, :, :height, :width] for c in conditions]
        inputs = []
        for model in models.values():
            one = alone.to(model.cfg.device)
            inputs.append(torch.cat([pixel_values(model, corrupted(one, c, seed=seed)) for c in conditions]))
        yield ConditionedImage(
            title=title,
            label=int(alone.labels),
            pictures=tuple(picture_uri((image * 255).round().byte().cpu().numpy()) for image in seen),
            pixel_values=tuple(inputs),
        )


@contextmanager
def error_context(model: str, image: str, conditions: Sequence[str]) -> Iterator[None]:
    """Let an error say whose pass it came from, and on which picture; its places in the batch are the conditions."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{model!r} on the picture {image!r} ({', '.join(conditions)}): {error}") from error


def condition_titles(conditions: Sequence[Any]) -> tuple[str, ...]:
    """`clean`, then the corruptions' names in prose."""
    return ("clean", *(condition.title for condition in conditions[1:]))
