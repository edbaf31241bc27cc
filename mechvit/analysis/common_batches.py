"""The same images under the same condition, for several models at once, and their residual streams side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from mechvit.data.batches import ImageBatch
from mechvit.data.corruption_spec import Condition

from .condition_images import check_conditions, check_same_image, shown
from .inputs import Images, model_batches

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

    Every condition of some images comes before the next images.

    Raises:
        ValueError: no condition, an attack on each of several models itself, and as `model_batches`.
    """
    if not conditions:
        raise ValueError("name at least one condition, as in clean or gaussian_blur_4; got none")
    if len(models) > 1:
        conditions = check_same_image(conditions, "a comparison of answers", models)
    applied = check_conditions(conditions, images)
    for batches in model_batches(models, images, batch_size, patterns=patterns, progress=progress):
        for condition in applied:
            yield condition, shown(models, batches, condition, seed=seed)


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
