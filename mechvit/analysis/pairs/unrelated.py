"""Median cosine that unrelated models of a shape reach by being matched, and the bound above which models are kin."""

from __future__ import annotations

import functools
import statistics

import torch

from mechvit.models.config import HookedViTConfig

from .matching import matched_cosines

KIN_MARGIN = 0.15
"""Distance that the median cosine of kin must keep from that of unrelated models, as a share of what is left to 1.

Of small models of three shapes, those trained apart lie .15 to .16 below the bound; those tuned on labels without sense
lie .75 to .78 above it at the learning rate of their training, and .23 to .25 at ten times that
(`benchmarks/kinship.py`).
"""
_BLOCKS = 8
"""Pairs of random blocks that are matched; two of large blocks, which agree closely."""
_LARGE = 1024
"""Number of neurons of a large block."""


def kin_bound(cfg: HookedViTConfig) -> float:
    """Return the median matched cosine above which two models of a shape are kin."""
    unrelated = unrelated_cosine(cfg)
    return unrelated + KIN_MARGIN * (1 - unrelated)


def unrelated_cosine(cfg: HookedViTConfig) -> float:
    """Return the median cosine of the matrices of two random models of a shape after matching.

    Matching takes the best of many partners, so that it rises above 0, the more the smaller a model is. Blocks are
    drawn from a normal distribution with fixed seeds and matched as models are (`matched_cosines`).
    """
    return _unrelated(cfg.n_heads, cfg.d_head, cfg.d_model, cfg.d_mlp, cfg.gated_mlp)


@functools.lru_cache(maxsize=32)
def _unrelated(n_heads: int, d_head: int, d_model: int, d_mlp: int, gated: bool) -> float:
    neurons = ("fc1", "fc2", "gate") if gated else ("fc1", "fc2")
    shapes = {
        "attn": dict.fromkeys("qkvo", (n_heads, d_head * d_model)),
        "mlp": dict.fromkeys(neurons, (d_mlp, d_model)),
    }
    found = []
    for seed in range(2 if d_mlp >= _LARGE else _BLOCKS):
        generator = torch.Generator().manual_seed(seed)
        for branch, sizes in shapes.items():
            pair = [
                {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
                for _ in ("base", "tuned")
            ]
            found += [matrix.matched for matrix in matched_cosines(branch, pair[0], pair[1], enough=1.0)]
    return statistics.median(found)
