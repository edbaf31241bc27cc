"""Images of any accepted kind -> batches on the model's device -> pixel values, clean or corrupted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from jaxtyping import Float
from torch import Tensor

from mechvit.data.batches import ImageBatch, iter_batches
from mechvit.data.corruptions import corrupt
from mechvit.data.pixels import normalize
from mechvit.data.spec import Corruption

if TYPE_CHECKING:
    import datasets

    from mechvit.models import HookedViT

Images: TypeAlias = "datasets.Dataset | ImageBatch"
"""A prepared data set, a raw one (resized by the model's own image processor), or images already in memory."""


def image_batches(
    model: HookedViT, images: Images, batch_size: int, *, progress: str | None = None
) -> Iterator[ImageBatch]:
    """Stream images in order, in [0, 1], on the model's device.

    Args:
        model: gives the device and, for raw images, the image processor.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`.
        batch_size: images a batch; the last one may be smaller.
        progress: the label of a progress bar; None shows none.

    Raises:
        ValueError: no image at all, a batch size below 1, or images of another size than the model's input.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    if len(images) == 0:
        raise ValueError("there is no image to look at; give at least one (an empty data set, or limit=0?)")
    device = model.cfg.device
    batches: Iterator[ImageBatch]
    if isinstance(images, ImageBatch):
        batches = (
            ImageBatch(
                *(part[i : i + batch_size].to(device) for part in (images.images, images.labels, images.image_ids))
            )
            for i in range(0, len(images), batch_size)
        )
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


def pixel_values(
    model: HookedViT, batch: ImageBatch, corruption: Corruption | str, *, seed: int = 0
) -> Float[Tensor, "batch 3 height width"]:
    """Corrupt in [0, 1], then normalise as the model's image processor says, in the model's own dtype."""
    images = corrupt(batch.images, corruption, batch.image_ids, seed=seed)
    return normalize(images, model.image_processor).to(model.cfg.dtype)


def default_batch_size(model: HookedViT, *, patterns: bool) -> int:
    """32 images on a CPU (its caches hold more than that badly), else 128; where attention is kept (patterns, or for
    large ones queries and keys), at most as many as fit it in 256 MiB of float32."""
    cfg = model.cfg
    most = 32 if cfg.device.type == "cpu" else 128
    per_image = 4 * cfg.n_layers * cfg.n_heads * cfg.n_tokens * min(cfg.n_tokens, 2 * cfg.d_head)
    return max(1, min(most, 2**28 // per_image)) if patterns else most


def on_cpu(tensor: Tensor) -> Tensor:
    """A detached copy that owns its memory, so that no result keeps a batch's activations alive."""
    return tensor.detach().to("cpu", copy=True)
