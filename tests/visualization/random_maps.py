"""An attention explorer of any size from random patterns that look like attention: no model runs."""

from __future__ import annotations

import numpy as np

from mechvit.analysis.attention_maps import AttentionMaps, encode
from mechvit.visualization.explorer import AttentionExplorer, ExplorerPicture
from mechvit.visualization.page import picture_uri


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


def random_explorer(
    *, models: int = 2, conditions: int = 2, pictures: int = 8, layers: int = 12, heads: int = 12, side: int = 14
) -> AttentionExplorer:
    """By default the size that the budgets are stated for: 12 x 12 heads, 197 tokens, 8 pictures of 224 pixels."""
    random = np.random.default_rng(0)
    count = iter(range(pictures * models * conditions))
    shown = []
    for place in range(pictures):
        smooth = np.kron(random.integers(0, 255, (3, 7, 7)), np.ones((32, 32))).astype(np.uint8)
        shown.append(
            ExplorerPicture(
                title=f"picture {place}",
                pictures=tuple(picture_uri(smooth // (1 + condition)) for condition in range(conditions)),
                maps=tuple(
                    tuple(random_maps(layers, heads, side, 1, next(count)) for _ in range(conditions))
                    for _ in range(models)
                ),
            )
        )
    return AttentionExplorer(
        models=("base", "tuned")[:models],
        conditions=("clean", "blur", "noise")[:conditions],
        layers=tuple(range(layers)),
        heads=tuple(range(heads)),
        rollouts=("mean", "max"),
        prefix=("CLS",),
        grid=(side, side),
        patch_size=16,
        pictures=tuple(shown),
    )
