"""The attention explorer: every head of one or more models over the pictures, in one offline page."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .page import framed, render, write_whole
from .patterns import pool_patterns, pooling_factor, prefix_names
from .shown import alike, chosen_images, condition_titles, conditions_of, shown_images

if TYPE_CHECKING:
    from ..analysis.attention_maps import AttentionMaps
    from ..analysis.rollout import Fusion
    from ..data.spec import Corruption
    from ..models import HookedViT


@dataclass(frozen=True, kw_only=True)
class ExplorerPicture:
    """One image under every condition, and what each model attends to in it."""

    title: str
    """Its label or file name, shown as plain text."""
    pictures: tuple[str, ...]
    """One data URI a condition."""
    maps: tuple[tuple[AttentionMaps, ...], ...]
    """By model, then by condition."""


@dataclass(frozen=True, kw_only=True)
class AttentionExplorer:
    """Attention of some pictures in some models; shows itself in a notebook, or `save(path)` as one file.

    The page holds each picture once a condition and each pattern as one byte a weight, deflated
    (`analysis.attention_maps.encode`). All pictures are stored with patches pooled in square blocks to at most
    `max_tokens` tokens, or fewer where `max_bytes` asks for it; those that come first are stored patch by patch
    instead, as many as fit into `max_bytes`. Numbers and rollouts are always made from all patches.
    """

    models: tuple[str, ...]
    conditions: tuple[str, ...]
    """Clean first."""
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    rollouts: tuple[str, ...]
    prefix: tuple[str, ...]
    """Names of the tokens before the first patch."""
    grid: tuple[int, int]
    patch_size: int
    """Pixels."""
    pictures: tuple[ExplorerPicture, ...]
    max_tokens: int = 50
    max_bytes: int = 20_000_000
    """Of the stored patterns as text."""
    title: str = "Attention explorer"

    def __post_init__(self) -> None:
        _ = self.coarse_tokens  # refuses what cannot fit

    @property
    def patterns(self) -> int:
        """Patterns of one picture in all models and conditions."""
        panels = len(self.models) * len(self.conditions)
        return panels * (len(self.layers) * len(self.heads) + len(self.rollouts))

    @property
    def coarse_tokens(self) -> int:
        """Tokens of pictures that are stored in blocks."""
        patterns = len(self.pictures) * self.patterns
        return fitting_tokens(patterns, self.grid, len(self.prefix), self.max_tokens, self.max_bytes)

    def spec(self) -> dict[str, Any]:
        """What the page's script draws, ready for JSON."""
        coarse = [self._panels(picture, self.coarse_tokens) for picture in self.pictures]
        room = self.max_bytes - sum(map(_size, coarse))
        block = pooling_factor(self.grid, len(self.prefix), self.coarse_tokens)
        tokens = len(self.prefix) + self.grid[0] * self.grid[1]
        hopeful = block > 1 and self.patterns * tokens**2 < 8 * self.max_bytes  # deflating rarely gains more
        pictures = []
        for picture, panels in zip(self.pictures, coarse, strict=True):
            fine = self._panels(picture, None) if hopeful else panels
            room -= _size(fine) - _size(panels)
            hopeful = hopeful and room >= 0
            about = {"title": picture.title, "pictures": picture.pictures}
            pictures.append(about | ({"block": 1, "panels": fine} if hopeful else {"block": block, "panels": panels}))
        return {
            "models": self.models,
            "conditions": self.conditions,
            "layers": self.layers,
            "heads": self.heads,
            "rollouts": self.rollouts,
            "prefix": self.prefix,
            "grid": self.grid,
            "patch": self.patch_size,
            "pictures": pictures,
        }

    def _panels(self, picture: ExplorerPicture, max_tokens: int | None) -> list[list[dict[str, Any]]]:
        return [[self._panel(maps, max_tokens) for maps in conditions] for conditions in picture.maps]

    def _panel(self, maps: AttentionMaps, max_tokens: int | None) -> dict[str, Any]:
        """One model on one image: layers and then the rollouts as packed rows of patterns, and each head's numbers."""
        from mechvit.analysis.attention_maps import decode, encode

        pooled = pooling_factor(self.grid, len(self.prefix), max_tokens) > 1

        def small(patterns: np.ndarray) -> np.ndarray:
            return pool_patterns(patterns, self.grid, len(self.prefix), max_tokens)

        rows, scales = [], []
        for codes, scale in zip(maps.codes, maps.scale, strict=True):
            packed, top = encode(small(decode(codes, scale))) if pooled else (codes, scale)
            rows.append(_deflated(packed))
            scales.append(_digits(top))
        if len(maps.rollouts):
            packed, top = encode(small(maps.rollouts))
            rows.append(_deflated(packed))
            scales.append(_digits(top))
        names = ("entropy", "distance", "prefix_mass")
        return {"rows": rows, "scale": scales, **{name: _digits(getattr(maps, name)) for name in names}}

    def html(self) -> str:
        """The whole page: self-contained and offline."""
        return render("explorer.html.j2", title=self.title, spec=self.spec())

    def save(self, path: str | Path) -> Path:
        """Write the page; returns its path."""
        return write_whole(Path(path), self.html())

    def _repr_html_(self) -> str:
        """A notebook's output: the page in a frame of its own."""
        return framed(self.html(), "Attention explorer", 900)


def fitting_tokens(patterns: int, grid: tuple[int, int], n_prefix: int, max_tokens: int, max_bytes: int) -> int:
    """The most tokens, up to `max_tokens`, at which that many pooled patterns are surely no more than `max_bytes`.

    Raises:
        ValueError: not even patterns of four blocks fit.
    """
    for block in range(pooling_factor(grid, n_prefix, max_tokens), max(grid) + 1):
        tokens = n_prefix + -(-grid[0] // block) * -(-grid[1] // block)
        needed = patterns * (-(-(tokens**2) // 3) * 4 + 64)  # base64, and a little that deflating may add
        if needed <= max_bytes:
            return tokens
        if block >= max(grid) / 2:
            break
    raise ValueError(
        f"max_bytes must hold the pooled patterns, {needed:,} bytes at least ({patterns:,} of {tokens} x {tokens} "
        f"weights); got {max_bytes:,}: give fewer pictures (limit), layers, heads or corruptions, or a larger max_bytes"
    )


def _deflated(codes: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(codes).tobytes(), 6)).decode("ascii")


def _digits(values: np.ndarray) -> Any:
    """Nested lists of six significant digits."""
    return [_digits(part) for part in values] if values.ndim > 1 else [float(f"{value:.6g}") for value in values]


def _size(panels: list[list[dict[str, Any]]]) -> int:
    return sum(len(row) for conditions in panels for panel in conditions for row in panel["rows"])


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
        images: a `datasets.Dataset` (captions are the labels), an `ImageBatch`, or a mapping of captions to PIL images
            or uint8 arrays [height, width, 3].
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
        seed: of the noise.
        title: the page's title.

    Raises:
        ValueError: models of different shapes, no image, an unknown corruption, layer, head or fusion, or more than
            fits into `max_bytes` in any blocks; all before the models run.
    """
    from mechvit.analysis.attention_maps import attention_maps, chosen_of
    from mechvit.analysis.rollout import check_rollout

    alike(models, "grid", "image_size", "n_prefix_tokens", "n_layers", "n_heads")
    first = next(iter(models.values()))
    cfg, conditions = first.cfg, conditions_of(corruptions)
    chosen = chosen_of("layers", layers, cfg.n_layers), chosen_of("heads", heads, cfg.n_heads)
    rollouts = [(fusion, float(ratio)) for ratio in discard_ratios for fusion in fusions]
    for fusion, ratio in rollouts:
        check_rollout(fusion, ratio)
    batch, titles = chosen_images(first, images, limit)
    patterns = len(titles) * len(models) * len(conditions) * (len(chosen[0]) * len(chosen[1]) + len(rollouts))
    fitting_tokens(patterns, cfg.grid, cfg.n_prefix_tokens, max_tokens, max_bytes)
    settings: dict[str, Any] = {"layers": layers, "heads": heads, "rollouts": rollouts}
    pictures = []
    for image in shown_images(models, batch, titles, conditions, seed):
        inputs = zip(models.values(), image.pixel_values, strict=True)
        maps = tuple(tuple(attention_maps(model, pixels, **settings)) for model, pixels in inputs)
        pictures.append(ExplorerPicture(title=image.title, pictures=image.pictures, maps=maps))
    return AttentionExplorer(
        models=tuple(map(str, models)),
        conditions=condition_titles(conditions),
        layers=chosen[0],
        heads=chosen[1],
        rollouts=tuple(f"{fusion}, lowest {ratio:.0%} dropped" if ratio else fusion for fusion, ratio in rollouts),
        prefix=tuple(prefix_names(cfg)),
        grid=cfg.grid,
        patch_size=cfg.patch_size,
        pictures=tuple(pictures),
        max_tokens=max_tokens,
        max_bytes=max_bytes,
        title=title,
    )
