"""Attention of one or more models on some pictures, run and packed for the explorer's page."""

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

if TYPE_CHECKING:
    from mechvit.analysis.attention.rollout import Fusion
    from mechvit.data.corruption_spec import Corruption
    from mechvit.models import HookedViT


@checked
def attention_explorer(
    models: Mapping[str, HookedViT],
    images: Any,
    corruptions: Sequence[Corruption | str] = ("gaussian_blur_4",),
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
    """Where each head looks, over the picture: clean | corrupted | difference, models beside each other, linked.

        attention_explorer({"base": base, "tuned": tuned}, images, ["gaussian_blur_4"]).save("explorer.html")

    Args:
        models: a title for each; they must share their shape.
        images: a `datasets.Dataset` (captions are the labels), an `ImageBatch`, or a mapping of captions to pictures
            as `mechvit.data.open_picture` takes them (paths, PIL images, arrays).
        corruptions: keys such as "gaussian_blur_4", each shown beside clean; none is allowed.
        layers: blocks to store, 0 to n_layers - 1; all by default.
        heads: heads to store, 0 to n_heads - 1; all by default.
        limit: at most this many pictures.
        fusions: how rollouts fuse heads ("mean", "min", "max").
        discard_ratios: each rollout's share of lowest weights that is dropped (see `analysis.attention_rollout`).
        max_tokens: what is stored of pictures that do not fit patch by patch: blocks of patches, to at most this many
            tokens, or fewer where `max_bytes` asks for it. Twelve layers of 12 heads take about 0.4 MB a picture, model
            and condition in 50 tokens, and 5 MB in 197.
        max_bytes: of all patterns in the page; the first pictures are stored in full as far as this reaches.
        seed: seed of the corruptions' noise.
        title: the page's title.

    Raises:
        ValueError: models of different shapes, no image, an unknown corruption, layer, head or fusion, or more than
            fits into `max_bytes` in any blocks, all before the models run; or attention that is not finite.
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
    hopeful = block > 1 and patterns * cfg.n_tokens**2 < 8 * max_bytes  # deflating rarely gains more
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
    )
