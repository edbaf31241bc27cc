"""Attention of one or more models on some pictures, computed and packed for the explorer's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked
from mechvit.visualization.attention.explorer import AttentionExplorer, ExplorerPicture
from mechvit.visualization.attention.pattern_packing import fitting_tokens, pack, size
from mechvit.visualization.attention.pattern_pooling import pooling_factor, prefix_names

from .example_images import (
    captioned_images,
    check_same_layout,
    condition_titles,
    conditioned_images,
    conditions_of,
    error_context,
)
from .page_provenance import page_provenance

if TYPE_CHECKING:
    from mechvit.analysis.attention.rollout import Fusion
    from mechvit.data.corruption_spec import Condition
    from mechvit.models import HookedViT


@checked
def attention_explorer(
    models: Mapping[str, HookedViT],
    images: Any,
    corruptions: Sequence[Condition | str] = ("gaussian_blur_4",),
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    limit: int = 8,
    fusions: Sequence[Fusion] = ("mean", "min", "max"),
    discard_ratios: Sequence[float] = (0.0, 0.9),
    max_tokens: int = 50,
    max_bytes: int = 20_000_000,
    seed: int = 0,
    title: str = "Attention explorer",
) -> AttentionExplorer:
    """Show each head's attention over the picture: clean, corrupted and difference, with the models side by side.

        attention_explorer({"base": base, "tuned": tuned}, images, ["gaussian_blur_4"]).save("explorer.html")

    Args:
        models: models by title; all must have the same shape.
        images: a `datasets.Dataset` (captions are the labels), an `ImageBatch`, or a mapping of captions to pictures as
            `mechvit.data.open_picture` takes them (paths, PIL images, arrays).
        corruptions: keys such as "gaussian_blur_4", each shown beside clean; may be empty.
        layers: blocks to store, 0 to n_layers - 1; all by default.
        heads: heads to store, 0 to n_heads - 1; all by default.
        limit: largest number of pictures.
        fusions: functions by which rollouts fuse heads ("mean", "min", "max").
        discard_ratios: shares of the lowest weights that rollouts drop (see `analysis.attention_rollout`).
        max_tokens: largest number of tokens to which patches are pooled for pictures that do not fit patch by patch;
            fewer if `max_bytes` requires it. Twelve layers of 12 heads take about 0.4 MB per picture, model and
            condition with 50 tokens, and 5 MB with 197.
        max_bytes: largest total size of all patterns in the page; the first pictures are stored in full as far as it
            allows.
        seed: seed of the corruptions' noise.
        title: the page's title.

    Raises:
        ValueError: the models differ in shape, there is no image, a corruption, layer, head or fusion is unknown, or
            the patterns do not fit into `max_bytes` (all found before the models run); or attention is not finite.
    """
    from mechvit.analysis.attention.maps import attention_maps, checked_indices
    from mechvit.analysis.attention.rollout import check_rollout

    check_same_layout(models, "grid", "image_size", "n_prefix_tokens", "n_layers", "n_heads")
    first = next(iter(models.values()))
    cfg, conditions = first.cfg, conditions_of(corruptions)
    chosen = checked_indices("layers", layers, cfg.n_layers), checked_indices("heads", heads, cfg.n_heads)
    rollouts = [(fusion, float(ratio)) for ratio in discard_ratios for fusion in fusions]
    for fusion, ratio in rollouts:
        check_rollout(fusion, ratio)
    batch, titles = captioned_images(first, images, limit)
    patterns = len(models) * len(conditions) * (len(chosen[0]) * len(chosen[1]) + len(rollouts))
    tokens = fitting_tokens(len(titles) * patterns, cfg.grid, cfg.n_prefix_tokens, max_tokens, max_bytes)
    block = pooling_factor(cfg.grid, cfg.n_prefix_tokens, tokens)
    hopeful = block > 1 and patterns * cfg.n_tokens**2 < 8 * max_bytes  # deflating rarely saves more
    room = max_bytes if hopeful else 0
    pictures = []
    for image in conditioned_images(models, batch, titles, conditions, seed):
        coarse, fine = [], []
        for (name, model), pixels in zip(models.items(), image.pixel_values, strict=True):
            with error_context(name, image.title, condition_titles(conditions)):
                found = attention_maps(model, pixels, layers=layers, heads=heads, rollouts=rollouts)
            coarse.append([pack(maps, cfg.grid, tokens) for maps in found])
            fine.append([pack(maps, cfg.grid, None) for maps in found] if room > 0 else [])
        room -= size(fine)
        kept = fine if room > 0 else None
        pictures.append(ExplorerPicture(title=image.title, pictures=image.pictures, coarse=coarse, fine=kept))
    return AttentionExplorer(
        models=tuple(map(str, models)),
        conditions=condition_titles(conditions),
        layers=chosen[0],
        heads=chosen[1],
        rollouts=tuple(f"{fusion}, lowest {ratio:.0%} dropped" if ratio else fusion for fusion, ratio in rollouts),
        prefix=tuple(prefix_names(cfg)),
        grid=cfg.grid,
        patch_size=cfg.patch_size,
        block=block,
        pictures=tuple(pictures),
        max_bytes=max_bytes,
        title=title,
        provenance=page_provenance(models, images),
    )
