"""Attention patterns in circuitsvis: one offline page, or a notebook's output, with the bundle inlined once."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mechvit.arguments import checked

from .notices import licences, notices
from .page import circuitsvis_script, framed, picture_uri, render, write_whole
from .patterns import pool_patterns, pooling_factor, prefix_names, token_names

if TYPE_CHECKING:
    from ..models import HookedViT


@dataclass(frozen=True, kw_only=True)
class AttentionPanel:
    """One model on one image: what a panel shows."""

    title: str
    """Shown above the panel, as plain text."""
    patterns: Float[np.ndarray, "layers heads query key"]
    """Pooled attention; each row sums to one."""
    picture: str | None = None
    """The image as a data URI, drawn with the token grid over it."""


@dataclass(frozen=True, kw_only=True)
class AttentionView:
    """Panels of attention with a shared choice of layer; shows itself in a notebook, or `save(path)` as one file."""

    panels: tuple[AttentionPanel, ...]
    tokens: tuple[str, ...]
    """Names of the pooled tokens."""
    grid: tuple[int, int]
    """Rows and columns of the pooled patches."""
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    title: str = "Attention"

    def beside(self, *others: AttentionView) -> AttentionView:
        """One view with the panels of all, linked.

        Raises:
            ValueError: the views differ in tokens, layers or heads.
        """
        for other in others:
            if (other.tokens, other.layers, other.heads) != (self.tokens, self.layers, self.heads):
                raise ValueError(
                    "views beside each other must share tokens, layers and heads; got "
                    f"{len(self.tokens)} tokens, layers {self.layers}, heads {self.heads} and "
                    f"{len(other.tokens)} tokens, layers {other.layers}, heads {other.heads}: "
                    "make both with the same arguments"
                )
        return replace(self, panels=(*self.panels, *(panel for other in others for panel in other.panels)))

    def spec(self) -> dict[str, Any]:
        """What the page's script draws, ready for JSON: patterns as base64 of uint16, decoded to four digits."""
        return attention_spec(self, {"": range(len(self.panels))})

    def html(self) -> str:
        """The whole page: self-contained, offline, 1.3 MB of script and the data."""
        owed = notices("circuitsvis")
        return render(
            "attention.html.j2",
            title=self.title,
            spec=self.spec(),
            bundle=circuitsvis_script(),
            notices=owed,
            licences=licences(owed),
        )

    def save(self, path: str | Path) -> Path:
        """Write the page; returns its path."""
        return write_whole(Path(path), self.html())

    def _repr_html_(self) -> str:
        """A notebook's output: the page in a frame of its own, so that several views never disturb each other."""
        return framed(self.html(), "Attention", 780)


def attention_spec(view: AttentionView, sets: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """A view as JSON, its panels grouped in named sets of which one is shown at a time."""
    scale = [float(panel.patterns.max()) or 1.0 for panel in view.panels]
    return {
        "tokens": view.tokens,
        "grid": view.grid,
        "layers": view.layers,
        "heads": [f"Head {head}" for head in view.heads],
        "sets": [{"title": title, "panels": list(chosen)} for title, chosen in sets.items()],
        "panels": [
            {
                "title": panel.title,
                "picture": panel.picture,
                "scale": top,
                "layers": [_packed(layer / top) for layer in panel.patterns],
            }
            for panel, top in zip(view.panels, scale, strict=True)
        ],
    }


def _packed(unit: np.ndarray) -> str:
    """Values in [0, 1] as base64 of little-endian uint16."""
    return base64.b64encode(np.rint(unit * 65535).astype("<u2").tobytes()).decode("ascii")


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
    """Where each head looks: circuitsvis's attention heads of one image, or of several side by side.

        attention_view(model, image).save("attention.html")
        attention_view(model, {"clean": image, "blurred": blurred}, layers=[3])

    Patches are pooled in square blocks to at most `max_tokens` tokens (sums over sources, means over destinations),
    because circuitsvis draws 50 tokens in a few seconds and 197 in most of a minute.

    Args:
        model: a HookedViT.
        image: a picture as `mechvit.data.open_picture` takes it (a path, a PIL image, an array), or a tensor of
            normalised pixel values [3, height, width] or [1, 3, height, width]; or a mapping of panel titles to these.
        layers: which blocks, 0 to n_layers - 1; all by default, one shown at a time.
        heads: which heads, 0 to n_heads - 1; all by default.
        max_tokens: pool to at most this many tokens; None for full resolution (then choose a head or two).
        title: the page's title.

    Raises:
        ValueError: a layer or head that the model lacks, an image of another shape, too small a `max_tokens`, or
            attention that is not finite.
    """
    import torch

    from mechvit.analysis.attention_maps import checked_indices
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
    )


def pooled_grid(grid: tuple[int, int], n_prefix: int, max_tokens: int | None) -> tuple[int, int]:
    """Rows and columns of blocks after pooling."""
    factor = pooling_factor(grid, n_prefix, max_tokens)
    return -(-grid[0] // factor), -(-grid[1] // factor)


def _pixel_values(model: HookedViT, image: object) -> Any:
    """Normalised pixel values [1, 3, height, width] of any accepted image."""
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
    """The pixels as the model sees them, back in RGB, as a data URI."""
    from mechvit.models.pixel_values import pixel_scale

    values = pixel_values[0].float().cpu()
    if model.image_processor is not None:
        values = pixel_scale(model.image_processor).unit(values[None])[0].numpy()
    else:
        values = values.numpy()
        values = (values - values.min()) / max(float(np.ptp(values)), 1e-6)
    return picture_uri((np.clip(values, 0, 1) * 255).round().astype(np.uint8))
