"""Attention maps as compact text for a page: deflated bytes, with patches pooled in blocks if a budget requires it."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from .pattern_pooling import pool_patterns, pooling_factor

if TYPE_CHECKING:
    from mechvit.analysis.attention.maps import AttentionMaps

Panel = dict[str, Any]
"""One model on one image: `rows` (packed patterns of each layer, then rollouts), `scale`, and heads' statistics."""


def fitting_tokens(patterns: int, grid: tuple[int, int], n_prefix: int, max_tokens: int, max_bytes: int) -> int:
    """Return the most tokens, up to `max_tokens`, at which the pooled patterns surely fit into `max_bytes`.

    Raises:
        ValueError: even patterns of four blocks do not fit.
    """
    for block in range(pooling_factor(grid, n_prefix, max_tokens), max(grid) + 1):
        tokens = n_prefix + -(-grid[0] // block) * -(-grid[1] // block)
        needed = patterns * (-(-(tokens**2) // 3) * 4 + 64)  # base64, and the overhead that deflating may add
        if needed <= max_bytes:
            return tokens
        if block >= max(grid) / 2:
            break
    raise ValueError(
        f"max_bytes must hold the pooled patterns, {needed:,} bytes at least ({patterns:,} of {tokens} x {tokens} "
        f"weights); got {max_bytes:,}: give fewer pictures (limit), layers, heads or corruptions, or a larger max_bytes"
    )


def pack(maps: AttentionMaps, grid: tuple[int, int], max_tokens: int | None) -> Panel:
    """Pack one model's attention on one image, pooled to at most `max_tokens` tokens (None: patch by patch).

    Statistics are those of all patches; rollouts are pooled after they are computed.
    """
    from mechvit.analysis.attention.maps import decode, encode

    n_prefix = maps.codes.shape[-1] - grid[0] * grid[1]

    def small(patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return encode(pool_patterns(patterns, grid, n_prefix, max_tokens))

    pooled = pooling_factor(grid, n_prefix, max_tokens) > 1
    layers = zip(maps.codes, maps.scale, strict=True)
    rows = [small(decode(codes, scale)) if pooled else (codes, scale) for codes, scale in layers]
    if len(maps.rollouts):
        rows.append(small(maps.rollouts))
    names = ("entropy", "distance", "prefix_mass")
    return {
        "rows": [_deflated(codes) for codes, _ in rows],
        "scale": [_digits(scale) for _, scale in rows],
        **{name: _digits(getattr(maps, name)) for name in names},
    }


def size(panels: list[list[Panel]]) -> int:
    """Return the bytes of the packed patterns."""
    return sum(len(row) for conditions in panels for panel in conditions for row in panel["rows"])


def _deflated(codes: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(codes).tobytes(), 6)).decode("ascii")


def _digits(values: np.ndarray) -> Any:
    """Return nested lists of numbers with six significant digits."""
    return [_digits(part) for part in values] if values.ndim > 1 else [float(f"{value:.6g}") for value in values]
