"""Attention scores in blocks, so that PyTorch never holds all of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

Queries = Float[Tensor, "batch head query d_head"]
Keys = Float[Tensor, "batch head key d_head"]
Bias = Float[Tensor, "#batch #head query key"] | None

BLOCK = 2**19
"""Scores held at a time: 2 MiB of float32, which stay in the processor's cache."""

Block = tuple[slice, slice, slice]
"""Slices of images, heads and queries."""


def blocks(q: Queries, k: Keys) -> Iterator[Block]:
    """Divide the scores [batch, head, query, key] into blocks of whole rows, of at most `BLOCK` scores if possible."""
    (batch, heads, queries, _), keys = q.shape, k.shape[2]
    rows = max(1, min(queries, BLOCK // keys))
    per_head = max(1, BLOCK // (queries * keys)) if rows == queries else 1
    n_heads, n_images = min(heads, per_head), max(1, per_head // heads)
    for image in range(0, batch, n_images):
        for head in range(0, heads, n_heads):
            for row in range(0, queries, rows):
                yield slice(image, image + n_images), slice(head, head + n_heads), slice(row, row + rows)


def scores_of(block: Block, q: Queries, k: Keys, bias: Bias, scale: float) -> Float[Tensor, "images heads queries key"]:
    """Compute scale q kᵀ + bias for a block, in float32 at least."""
    images, heads, rows = block
    wide = torch.promote_types(q.dtype, torch.float32)
    # One image's heads are strided; as three dimensions they are multiplied without a copy.
    one = q[images].shape[0] == 1
    query, key = (x[images.start] if one else x[images] for x in (q, k))
    query, key = (query[heads][:, rows], key[heads]) if one else (query[:, heads, rows], key[:, heads])
    scores = (query.to(wide) * scale) @ key.to(wide).transpose(-1, -2)
    scores = scores[None] if one else scores
    if bias is not None:
        own = bias[images if bias.shape[0] > 1 else slice(None), heads if bias.shape[1] > 1 else slice(None), rows]
        scores += own
    return scores


def default_scale(q: Tensor, scale: float | None) -> float:
    """Return `scale`, or 1 / √d_head for None."""
    return q.shape[-1] ** -0.5 if scale is None else scale
