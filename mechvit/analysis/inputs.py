"""Images of any accepted kind as batches on the model's device, and as pixel values."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.data.batches import ImageBatch, iter_batches
from mechvit.data.conditions import Attack
from mechvit.data.corruption_spec import Condition
from mechvit.data.pixels import normalize
from mechvit.models.checkpoints.checks import check_one_dtype
from mechvit.models.processors.preprocessing import check_alike, described, resizing_key, resizing_of, unequal
from mechvit.settings_checks import COUNT, check_number

from .condition_images import bound, check_conditions, shown

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT

Images: TypeAlias = "datasets.Dataset | ImageBatch"
"""A prepared data set, a raw one (resized by the model's own image processor), or images already in memory."""


@dataclass(frozen=True)
class SharedBatch:
    """A batch of images for those of several models that resize alike."""

    models: tuple[str, ...]
    """Names of the models."""
    start: int
    """Index of its first image among all images."""
    conditions: Iterator[tuple[Condition, ImageBatch]]
    """Each condition with the batch as it shows it, in the order asked for; computed as they are consumed, once."""


def corrupted_batches(
    models: Mapping[str, HookedViT],
    images: Images,
    corruptions: Collection[Condition | str],
    batch_size: int | None = None,
    *,
    patterns: bool = False,
    seed: int = 0,
    progress: str | None = None,
) -> Iterator[SharedBatch]:
    """Stream the same images to several models (`model_batches`) under several conditions (`shown`).

    Each condition is applied once for all models that share its result; under an attack on each model itself no two do.
    `seed` determines all random draws.
    """
    applied = [bound(condition, models) for condition in check_conditions(corruptions, images)]
    alone = any(isinstance(condition, Attack) and condition.victim == "self" for condition in applied)
    start = 0
    for batches in model_batches(models, images, batch_size, patterns=patterns, progress=progress):
        groups = [[name] for name in models] if alone else [names for _, names in distinct(batches)]
        attacked: dict[Condition, dict[str, ImageBatch]] = {}
        for names in groups:
            yield SharedBatch(tuple(names), start, _conditions(models, batches, names, applied, attacked, seed))
        start += len(batches[groups[0][0]])


def _conditions(
    models: Mapping[str, HookedViT],
    batches: Mapping[str, ImageBatch],
    names: list[str],
    conditions: Iterable[Condition],
    attacked: dict[Condition, dict[str, ImageBatch]],
    seed: int,
) -> Iterator[tuple[Condition, ImageBatch]]:
    """Yield what models that share a batch are shown; attacks on one model are kept in `attacked` for the others."""
    for condition in conditions:
        if isinstance(condition, Attack) and condition.model is not None and len(names) < len(models):
            if condition not in attacked:
                attacked[condition] = shown(models, batches, condition, seed=seed)
            yield condition, attacked[condition][names[0]]
        else:
            yield condition, shown(models, batches, condition, names=names, seed=seed)[names[0]]


def image_batches(
    model: HookedViT,
    images: Images,
    batch_size: int | None = None,
    *,
    conditions: Iterable[Condition | str] = (),
    patterns: bool = False,
    progress: str | None = None,
) -> Iterator[ImageBatch]:
    """Stream images in order, in [0, 1], on the model's device.

    Args:
        model: determines the device and, for raw images, the image processor.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`.
        batch_size: images per batch; the last one may be smaller. None takes `default_batch_size`.
        conditions: those that the images will be shown under (`shown_to`), which the images must allow.
        patterns: whether attention patterns are kept, which lowers the default.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: no image at all, one without a partner, a batch size below 1, images of a size other than the
            model's input, or resized with settings other than the model's image processor's (named).
    """
    batch_size = default_batch_size(model, patterns=patterns) if batch_size is None else batch_size
    check_number("batch_size", batch_size, COUNT)
    if len(images) == 0:
        raise ValueError("there is no image to look at; give at least one (an empty data set, or limit=0?)")
    check_conditions(conditions, images)
    device = model.cfg.device
    batches: Iterator[ImageBatch]
    if isinstance(images, ImageBatch):
        check_resized(model, images)
        batches = (images.take(slice(i, i + batch_size)).to(device) for i in range(0, len(images), batch_size))
    else:
        batches = iter_batches(images, model.image_processor, batch_size, device=device, progress=progress)
    size = model.cfg.image_size
    for batch in batches:
        if batch.images.shape[-2:] != (size, size):
            got = "x".join(map(str, batch.images.shape[-2:]))
            raise ValueError(
                f"images must have the model's input size, {size}x{size}; got {got}: prepare them with this "
                "model's image processor (mechvit.data.prepare)"
            )
        yield batch


def model_batches(
    models: Mapping[str, HookedViT],
    images: Images,
    batch_size: int | None = None,
    *,
    patterns: bool = False,
    progress: str | None = None,
) -> Iterator[dict[str, ImageBatch]]:
    """Stream the same images to several models, each as its own image processor resizes and crops them.

    Models whose processors resize alike get the same batch object, so that it is corrupted only once (`distinct`).

    Args:
        models: name -> model.
        images: a `datasets.Dataset`, raw or prepared for all of these models; or an `ImageBatch`, if they resize alike.
        batch_size, patterns, progress: as in `image_batches`; the default suits every model.

    Raises:
        ValueError: as `image_batches`; prepared images for models that resize differently (the settings are named);
            models of different dtypes.
    """
    check_one_dtype({name: model.cfg for name, model in models.items()})
    processors = {name: model.image_processor for name, model in models.items() if model.image_processor is not None}
    if isinstance(images, ImageBatch) and processors:
        check_alike(processors, "an ImageBatch, whose pixels are already resized,")
    keys = {name: resizing_key(processors[name]) if name in processors else None for name in models}
    resizing = next((key for key in keys.values() if key is not None), None)
    keys = {name: key or resizing for name, key in keys.items()}  # a model without a processor shares another's batch
    leaders: dict[str | None, str] = {}
    for name in (*processors, *models):
        leaders.setdefault(keys[name], name)
    if batch_size is None:
        batch_size = min(default_batch_size(model, patterns=patterns) for model in models.values())
    bars = [progress, *[None] * (len(leaders) - 1)]
    streams = {
        key: image_batches(models[name], images, batch_size, progress=bar)
        for (key, name), bar in zip(leaders.items(), bars, strict=True)
    }
    for parts in zip(*streams.values(), strict=True):
        by_key = dict(zip(streams, parts, strict=True))
        yield {name: on_device(by_key[key], models[name].cfg.device) for name, key in keys.items()}


def on_device(batch: ImageBatch, device: torch.device) -> ImageBatch:
    """Return the batch itself if it is on that device, else a copy there."""
    return batch if batch.images.device == device else batch.to(device)


def distinct(batches: Mapping[str, ImageBatch]) -> Iterator[tuple[ImageBatch, list[str]]]:
    """Yield each distinct batch once, with the names of the models that get it."""
    found: dict[int, tuple[ImageBatch, list[str]]] = {}
    for name, batch in batches.items():
        found.setdefault(id(batch), (batch, []))[1].append(name)
    yield from found.values()


def check_resized(model: HookedViT, batch: ImageBatch) -> None:
    """Refuse images that were resized for another model; those of unknown resizing are accepted.

    Raises:
        ValueError: names the settings that differ.
    """
    if batch.resized_by is None or model.image_processor is None:
        return
    own, theirs = resizing_of(model.image_processor), json.loads(batch.resized_by)
    if own != theirs:
        raise ValueError(
            f"the images were resized for another model: {described(unequal(theirs, own))} (for these images, and in "
            "this model's image processor). Give a data set, which each model's own image processor can resize"
        )


def pixel_values(model: HookedViT, batch: ImageBatch) -> Float[Tensor, "batch 3 height width"]:
    """Rescale and normalise images in [0, 1] as the model's image processor says, in the model's own dtype.

    Raises:
        ValueError: the images were resized for another model (the settings are named).
    """
    check_resized(model, batch)
    return normalize(batch.images, model.image_processor).to(model.cfg.dtype)


def default_batch_size(model: HookedViT, *, patterns: bool = False, held: int = 0, limit: int = 2**28) -> int:
    """Return a batch size: 32 on a CPU (its caches suit no more), else 128, and at most as many images as fit a limit.

    Args:
        model: determines the device.
        patterns: whether attention is kept (patterns, or for large ones queries and keys), in float32.
        held: other bytes kept per image; 0 sets no limit.
        limit: most bytes to hold.
    """
    cfg = model.cfg
    if patterns:
        held = 4 * cfg.n_layers * cfg.n_heads * cfg.n_tokens * min(cfg.n_tokens, 2 * cfg.d_head)
    most = 32 if cfg.device.type == "cpu" else 128
    return max(1, min(most, limit // held)) if held else most


def wide(tensor: Tensor) -> Tensor:
    """Return a half-precision tensor in float32, so that sums neither overflow nor stall; any other unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def wide_sum(tensor: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Sum over some dimensions, half precision in float32, without converting the whole tensor."""
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.sum(dim, dtype=torch.float32 if half else None)


def on_cpu(tensor: Tensor) -> Tensor:
    """Return a detached copy that owns its memory, so that no result keeps a batch's activations alive."""
    return tensor.detach().to("cpu", copy=True)
