"""Attention of one image, or of several side by side, computed and pooled for circuitsvis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvit.arguments import checked
from mechvit.visualization.attention.circuitsvis_view import AttentionPanel, AttentionView, pooled_grid
from mechvit.visualization.attention.pattern_pooling import pool_patterns, prefix_names, token_names
from mechvit.visualization.html_page.page import picture_uri

from .page_provenance import page_provenance

if TYPE_CHECKING:
    from mechvit.models import HookedViT


@checked
def attention_view(
    model: HookedViT,
    image: object,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    *,
    max_tokens: int | None = 50,
    title: str = "Attention",
) -> AttentionView:
    """Show attention with circuitsvis: the attention heads on one image, or on several side by side.

        attention_view(model, image).save("attention.html")
        attention_view(model, {"clean": image, "blurred": blurred}, layers=[3])

    Patches are pooled in square blocks to at most `max_tokens` tokens (sums over sources, means over destinations),
    since circuitsvis draws 50 tokens in a few seconds and 197 in almost a minute.

    Args:
        model: a HookedViT.
        image: a picture as `mechvit.data.open_picture` takes it (a path, a PIL image, an array), or a tensor of
            normalised pixel values [3, height, width] or [1, 3, height, width]; or a mapping of panel titles to these.
        layers: blocks, 0 to n_layers - 1; all by default, displayed one at a time.
        heads: heads, 0 to n_heads - 1; all by default.
        max_tokens: largest number of tokens after pooling; None for full resolution (then choose one or two heads).
        title: the page's title.

    Raises:
        ValueError: the model lacks a layer or head, an image has another shape, `max_tokens` is too small, or attention
            is not finite.
    """
    import torch

    from mechvit.analysis.attention.maps import checked_indices
    from mechvit.analysis.finite import check_finite

    cfg = model.cfg
    chosen_layers = checked_indices("layers", layers, cfg.n_layers)
    chosen_heads = checked_indices("heads", heads, cfg.n_heads)
    pooled_grid((int(cfg.grid[0]), int(cfg.grid[1])), int(cfg.n_prefix_tokens), max_tokens)  # refuses too few tokens
    named = dict(image) if isinstance(image, Mapping) else {"": image}
    pixel_values = [_pixel_values(model, value) for value in named.values()]
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in chosen_layers]
    with torch.no_grad():
        _, cache = model.run_with_cache(
            torch.cat(pixel_values).to(cfg.device, cfg.dtype),
            names_filter=lambda name: name in names,
            stop_at_layer=max(chosen_layers) + 1,
        )
    check_finite("attention weights", [cache[name] for name in names], model, list(named), numbers=chosen_layers)
    stacked = torch.stack([cache[name][:, list(chosen_heads)] for name in names], 1).float().cpu().numpy()
    grid, prefix = (int(cfg.grid[0]), int(cfg.grid[1])), int(cfg.n_prefix_tokens)
    pooled = pool_patterns(stacked, grid, prefix, max_tokens)
    pictures = [_picture(model, values) for values in pixel_values]
    panels = zip(named, pooled, pictures, strict=True)
    return AttentionView(
        panels=tuple(AttentionPanel(title=name, patterns=p, picture=picture) for name, p, picture in panels),
        tokens=tuple(token_names(grid, prefix_names(cfg), max_tokens)),
        grid=pooled_grid(grid, prefix, max_tokens),
        layers=chosen_layers,
        heads=chosen_heads,
        title=title,
        provenance=page_provenance({"": model}),
    )


def _pixel_values(model: HookedViT, image: object) -> Any:
    """Return normalised pixel values [1, 3, height, width] for any accepted image."""
    import torch

    from mechvit.data import open_picture

    if not isinstance(image, torch.Tensor):
        if model.image_processor is None:
            raise ValueError(
                "a picture needs the model's image processor, and this model has none: give normalised pixel values "
                "[3, height, width], or load the model from a folder with a preprocessor_config.json"
            )
        return model.image_processor(images=open_picture(image), return_tensors="pt")["pixel_values"]
    values = image if image.ndim == 4 else image[None]
    if values.ndim != 4 or values.shape[:2] != (1, 3) or not values.is_floating_point():
        raise ValueError(
            "an image tensor must hold normalised floating-point pixel values [3, height, width] or "
            f"[1, 3, height, width]; got {image.dtype} {list(image.shape)}: give one image, "
            "or a mapping of titles to images"
        )
    return values


def _picture(model: HookedViT, pixel_values: Any) -> str:
    """Return the model's input, converted back to RGB, as a data URI."""
    from mechvit.models.processors.pixel_values import pixel_scale

    values = pixel_values[0].float().cpu()
    if model.image_processor is not None:
        values = pixel_scale(model.image_processor).unit(values[None])[0].numpy()
    else:
        values = values.numpy()
        values = (values - values.min()) / max(float(np.ptp(values)), 1e-6)
    return picture_uri((np.clip(values, 0, 1) * 255).round().astype(np.uint8))
