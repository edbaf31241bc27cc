"""The attention explorer: every head of one or more models over the pictures, in one offline page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechvit.arguments import checked

from .packing import Panel, fitting_tokens, pack, size
from .page import framed, render, write_whole
from .patterns import pooling_factor, prefix_names
from .shown import about, alike, chosen_images, condition_titles, conditions_of, shown_images

if TYPE_CHECKING:
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
    coarse: list[list[Panel]]
    """By model, then by condition; patches pooled in blocks."""
    fine: list[list[Panel]] | None = None
    """The same patch by patch, where it may fit."""


@dataclass(frozen=True, kw_only=True)
class AttentionExplorer:
    """Attention of some pictures in some models; shows itself in a notebook, or `save(path)` as one file.

    The page holds each picture once a condition and each pattern as one byte a weight, deflated
    (`analysis.attention_maps.encode`). All pictures are stored with patches pooled in square blocks; those that come
    first are stored patch by patch instead, as many as fit into `max_bytes`. Numbers and rollouts are always made from
    all patches.
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
    block: int
    """Patches a side of a pooled block; 1 where none are pooled."""
    pictures: tuple[ExplorerPicture, ...]
    max_bytes: int
    """Of the stored patterns as text."""
    title: str = "Attention explorer"

    def spec(self) -> dict[str, Any]:
        """What the page's script draws, ready for JSON."""
        room = self.max_bytes - sum(size(picture.coarse) for picture in self.pictures)
        pictures = []
        for picture in self.pictures:
            fine = picture.fine if room >= 0 else None
            room = room - size(fine) + size(picture.coarse) if fine else -1
            fits = fine is not None and room >= 0
            chosen = {"block": 1, "panels": fine} if fits else {"block": self.block, "panels": picture.coarse}
            pictures.append({"title": picture.title, "pictures": picture.pictures, **chosen})
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

    def html(self) -> str:
        """The whole page: self-contained and offline."""
        return render("explorer.html.j2", title=self.title, spec=self.spec())

    def save(self, path: str | Path) -> Path:
        """Write the page; returns its path."""
        return write_whole(Path(path), self.html())

    def _repr_html_(self) -> str:
        """A notebook's output: the page in a frame of its own."""
        return framed(self.html(), "Attention explorer", 900)


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
        seed: of the noise.
        title: the page's title.

    Raises:
        ValueError: models of different shapes, no image, an unknown corruption, layer, head or fusion, or more than
            fits into `max_bytes` in any blocks, all before the models run; or attention that is not finite.
    """
    from mechvit.analysis.attention_maps import attention_maps, checked_indices
    from mechvit.analysis.rollout import check_rollout

    alike(models, "grid", "image_size", "n_prefix_tokens", "n_layers", "n_heads")
    first = next(iter(models.values()))
    cfg, conditions = first.cfg, conditions_of(corruptions)
    chosen = checked_indices("layers", layers, cfg.n_layers), checked_indices("heads", heads, cfg.n_heads)
    rollouts = [(fusion, float(ratio)) for ratio in discard_ratios for fusion in fusions]
    for fusion, ratio in rollouts:
        check_rollout(fusion, ratio)
    batch, titles = chosen_images(first, images, limit)
    patterns = len(models) * len(conditions) * (len(chosen[0]) * len(chosen[1]) + len(rollouts))
    tokens = fitting_tokens(len(titles) * patterns, cfg.grid, cfg.n_prefix_tokens, max_tokens, max_bytes)
    block = pooling_factor(cfg.grid, cfg.n_prefix_tokens, tokens)
    hopeful = block > 1 and patterns * cfg.n_tokens**2 < 8 * max_bytes  # deflating rarely gains more
    room = max_bytes if hopeful else 0
    pictures = []
    for image in shown_images(models, batch, titles, conditions, seed):
        coarse, fine = [], []
        for (name, model), pixels in zip(models.items(), image.pixel_values, strict=True):
            with about(name, image.title, condition_titles(conditions)):
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
