"""Queries, keys, values and biases for the tests of attention's kernels."""

from __future__ import annotations

import torch

SHAPES = {  # batch, heads, queries, keys, d_head
    "one tile": (2, 3, 64, 64, 16),
    "odd": (2, 2, 37, 37, 24),
    "vit": (1, 2, 197, 197, 64),
    "pooling": (3, 2, 1, 50, 16),
    "one key": (1, 1, 5, 1, 8),
    "wide head": (1, 1, 70, 65, 144),
}


def draw(shape, dtype=torch.float32, device="cpu", seed=0, sharp=2.0):
    """Queries, keys and values as attention holds them: [batch, token, head, d_head], transposed (not contiguous)."""
    batch, heads, queries, keys, d_head = shape
    generator = torch.Generator().manual_seed(seed)
    sizes = ((queries, sharp), (keys, 1.0), (keys, 1.0))
    return [
        (size * torch.randn(batch, n, heads, d_head, generator=generator)).to(device, dtype).transpose(1, 2)
        for n, size in sizes
    ]


def bias_of(shape, dtype, device, batch=1, heads=None):
    """Added to the scores, one for all images unless `batch` says otherwise."""
    return torch.randn(batch, heads or shape[1], shape[2], shape[3], generator=torch.Generator().manual_seed(9)).to(
        device, dtype
    )


def exact(function, *tensors, **options):
    """A reference on its arguments in float64."""
    wide = [None if tensor is None else tensor.double() for tensor in tensors]
    return function(*wide, **{name: None if t is None else t.double() for name, t in options.items()})
