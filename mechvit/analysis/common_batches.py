"""The same images under the same condition, for several models at once, and their residual streams side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import Condition

from .inputs import Images, SharedBatch, corrupted_batches

if TYPE_CHECKING:
    from mechvit.models import HookedViT


def common_batches(
    models: Mapping[str, HookedViT],
    images: Images,
    conditions: Collection[Condition | str],
    batch_size: int | None = None,
    *,
    patterns: bool = False,
    seed: int = 0,
    progress: str | None = None,
) -> Iterator[tuple[Condition, dict[str, ImageBatch]]]:
    """Stream each condition with the batch that each model is shown, the same images in the same order.

    The batches are those of `corrupted_batches`, of which each serves the models that resize alike; here those of all
    models come together. Every condition of some images comes before the next images.

    Raises:
        ValueError: no condition, and as `corrupted_batches`.
    """
    if not conditions:
        raise ValueError("name at least one condition, as in clean or gaussian_blur_4; got none")
    waiting: list[SharedBatch] = []
    for shared in corrupted_batches(
        models, images, conditions, batch_size, patterns=patterns, seed=seed, progress=progress
    ):
        waiting.append(shared)
        if sum(len(each.models) for each in waiting) < len(models):
            continue
        for parts in zip(*(each.conditions for each in waiting), strict=True):
            shown = {name: batch for each, (_, batch) in zip(waiting, parts, strict=True) for name in each.models}
            yield parts[0][0], {name: shown[name] for name in models}
        waiting = []


def common_residuals(
    models: Mapping[str, HookedViT], pixels: Mapping[str, Tensor]
) -> Iterator[dict[str, Float[Tensor, "batch token d_model"]]]:
    """Run several models block by block and yield their residual streams, one layer at a time.

    Layer 0 is the embedding, layer l the output of block l - 1. The models have as many blocks.
    """
    places = {name: model.place(model.cfg.grid) for name, model in models.items()}
    resids = {name: model(pixels[name], stop_at_layer=0) for name, model in models.items()}
    yield resids
    for blocks in zip(*(model.blocks for model in models.values()), strict=True):
        resids = {name: block(resids[name], places[name]) for name, block in zip(models, blocks, strict=True)}
        yield resids
