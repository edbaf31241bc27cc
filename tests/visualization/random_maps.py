"""An attention explorer and a patch lens of any size, random but like the real ones: no model runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from mechvit.analysis.attention.maps import AttentionMaps, encode
from mechvit.analysis.lenses.patch_lens import PatchLens
from mechvit.visualization.attention.explorer import AttentionExplorer, ExplorerPicture
from mechvit.visualization.attention.pattern_packing import fitting_tokens, pack, size
from mechvit.visualization.attention.pattern_pooling import pooling_factor
from mechvit.visualization.html_page.page import picture_uri
from mechvit.visualization.pages.patch_lens import LensPicture, PatchLensView

MAX_BYTES = 20_000_000


def random_maps(layers: int, heads: int, side: int, prefix: int, seed: int, rollouts: int = 2) -> AttentionMaps:
    """Heads of all widths around a few random places, noisy, each row summing to one."""
    random = np.random.default_rng(seed)
    places = np.stack(np.divmod(np.arange(side * side), side), 1).astype(np.float32)
    far = np.square(places[:, None] - places).sum(-1)
    tokens = prefix + side * side
    codes, scales = [], []
    for _ in range(layers):
        logits = random.normal(size=(heads, tokens, tokens)).astype(np.float32)
        width = random.uniform(1, side, size=(heads, 1, 1)).astype(np.float32)
        logits[:, prefix:, prefix:] -= far / width**2
        logits += 2 * random.normal(size=(heads, 1, tokens)).astype(np.float32)
        pattern = np.exp(logits - logits.max(-1, keepdims=True))
        code, scale = encode(pattern / pattern.sum(-1, keepdims=True))
        codes.append(code)
        scales.append(scale)
    shape = (layers, heads)
    rolled = random.random((rollouts, tokens, tokens)).astype(np.float32)
    return AttentionMaps(
        codes=np.stack(codes),
        scale=np.stack(scales),
        entropy=random.uniform(1, 5, shape),
        distance=random.uniform(1, side / 2, shape),
        prefix_mass=random.uniform(0, 0.4, (*shape, prefix)),
        rollouts=rolled / rolled.sum(-1, keepdims=True),
    )


def random_pictures(side: int, conditions: int, seed: int) -> tuple[str, ...]:
    """One smooth picture of 16 pixels a patch, darker under each further condition."""
    blocks = np.random.default_rng(seed).integers(0, 255, (3, side, side)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(blocks)[None], scale_factor=16, mode="bicubic")[0]
    pixels = smooth.clamp(0, 255).numpy().astype(np.uint8)
    return tuple(picture_uri(pixels // (1 + condition)) for condition in range(conditions))


TITLES = tuple(f"picture {place}" for place in range(8))


def random_explorer(
    *,
    models: Sequence[str] = ("base", "tuned"),
    conditions: Sequence[str] = ("clean", "blur"),
    titles: Sequence[str] = TITLES,
    layers: int = 12,
    heads: int = 12,
    side: int = 14,
    max_bytes: int = MAX_BYTES,
) -> AttentionExplorer:
    """By default the size that the budgets are stated for: 12 x 12 heads, 197 tokens, 8 pictures of 224 pixels."""
    patterns = len(titles) * len(models) * len(conditions) * (layers * heads + 2)
    tokens = fitting_tokens(patterns, (side, side), 1, 50, max_bytes)
    pictures, room = [], max_bytes
    for place, title in enumerate(titles):
        seeds = iter(range(100 * place, 100 * place + len(models) * len(conditions)))
        found = [[random_maps(layers, heads, side, 1, next(seeds)) for _ in conditions] for _ in models]
        coarse = [[pack(maps, (side, side), tokens) for maps in line] for line in found]
        fine = [[pack(maps, (side, side), None) for maps in line] for line in found] if room > 0 else None
        room -= size(fine or [])
        shown = random_pictures(side, len(conditions), place)
        pictures.append(ExplorerPicture(title=title, pictures=shown, coarse=coarse, fine=fine))
    return AttentionExplorer(
        models=tuple(models),
        conditions=tuple(conditions),
        layers=tuple(range(layers)),
        heads=tuple(range(heads)),
        rollouts=("mean", "max"),
        prefix=("CLS",),
        grid=(side, side),
        patch_size=16,
        block=pooling_factor((side, side), 1, tokens),
        pictures=tuple(pictures),
        max_bytes=max_bytes,
    )


def random_lens(
    *,
    models: Sequence[str],
    conditions: Sequence[str],
    titles: Sequence[str],
    names: Sequence[str],
    side: int = 6,
    layers: int = 4,
) -> PatchLensView:
    """Every patch its own classes at every layer."""
    generator = torch.Generator().manual_seed(0)
    pictures = []
    for place, title in enumerate(titles):
        logits = [3 * torch.randn(len(conditions), layers, side**2, len(names), generator=generator) for _ in models]
        ranked = [part.softmax(-1).topk(min(5, len(names))) for part in logits]
        rows = [
            (model, condition, layer, name, float(logits[m][c, layer, 0].softmax(-1)[n]))
            for m, model in enumerate(models)
            for c, condition in enumerate(conditions)
            for layer in range(layers)
            for n, name in enumerate(names[:2])
        ]
        pictures.append(
            LensPicture(
                title=title,
                pictures=random_pictures(side, len(conditions), place),
                lenses=tuple(PatchLens(classes=part.indices, probability=part.values) for part in ranked),
                trajectories=pd.DataFrame(rows, columns=["model", "condition", "layer", "class", "probability"]),
            )
        )
    return PatchLensView(
        models=tuple(models),
        conditions=tuple(conditions),
        names=dict(enumerate(names)),
        grid=(side, side),
        patch_size=16,
        pictures=tuple(pictures),
    )
