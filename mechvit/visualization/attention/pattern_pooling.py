"""Pooling of attention patterns to a readable size: patches in blocks, tokens named by row and column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mechvit.arguments import checked

if TYPE_CHECKING:
    from mechvit.models.config import HookedViTConfig


def pooling_factor(grid: tuple[int, int], n_prefix: int, max_tokens: int | None) -> int:
    """Return the smallest side of square blocks of patches that leaves at most `max_tokens` tokens (None: no pooling).

    Raises:
        ValueError: `max_tokens` does not leave room for one block.
    """
    if max_tokens is None:
        return 1
    if max_tokens < n_prefix + 1:
        raise ValueError(
            f"max_tokens must leave room for {n_prefix} prefix tokens and at least one patch; got {max_tokens}: "
            f"give {n_prefix + 1} or more, or None for no pooling"
        )
    factor = 1
    while math.ceil(grid[0] / factor) * math.ceil(grid[1] / factor) + n_prefix > max_tokens:
        factor += 1
    return factor


def block_of_token(grid: tuple[int, int], n_prefix: int, factor: int) -> np.ndarray:
    """Return the pooled token of each token, int [tokens]: prefix tokens stay single, then blocks row by row."""
    rows, cols = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    blocks = rows // factor * math.ceil(grid[1] / factor) + cols // factor
    return np.concatenate([np.arange(n_prefix), n_prefix + blocks])


@checked
def pool_patterns(
    patterns: Float[np.ndarray, "*batch query key"],
    grid: tuple[int, int],
    n_prefix: int,
    max_tokens: int | None = 50,
) -> Float[np.ndarray, "*batch pooled_query pooled_key"]:
    """Pool attention into blocks of patches: summed over sources (keys), averaged over destinations (queries).

    Each pooled row still sums to one. Blocks are squares of the smallest side that leaves at most `max_tokens` tokens;
    blocks at the right and bottom edges may be smaller. Prefix tokens are never pooled.

    Args:
        patterns: post-softmax attention, any leading dimensions, tokens = n_prefix + rows x columns.
        grid: patch rows and columns.
        n_prefix: tokens before the first patch (CLS, distillation, registers).
        max_tokens: largest number of pooled tokens; None pools nothing.

    Returns:
        float32 patterns of the pooled tokens.

    Raises:
        ValueError: the number of tokens is not n_prefix + rows x columns, or max_tokens leaves no room for a patch.
    """
    tokens = n_prefix + grid[0] * grid[1]
    if patterns.shape[-2:] != (tokens, tokens):
        raise ValueError(
            f"patterns must be {tokens} x {tokens} in their last dimensions ({n_prefix} prefix tokens and a grid of "
            f"{grid[0]} x {grid[1]} patches); got {' x '.join(map(str, patterns.shape[-2:]))}: check grid and n_prefix"
        )
    block = block_of_token(grid, n_prefix, pooling_factor(grid, n_prefix, max_tokens))
    member = np.zeros((tokens, block.max() + 1), np.float32)
    member[np.arange(tokens), block] = 1
    average = (member / member.sum(0)).T
    return average @ (np.asarray(patterns, np.float32) @ member)


def prefix_names(cfg: HookedViTConfig) -> list[str]:
    """Return the names of a model's tokens before the first patch, in order."""
    registers = [f"register {place}" for place in range(1, cfg.n_registers + 1)]
    return ["CLS"] * cfg.cls_token + ["distillation"] * cfg.distillation_token + registers


def token_names(grid: tuple[int, int], prefix: int | Sequence[str], max_tokens: int | None = 50) -> list[str]:
    """Return the names of the pooled tokens: those of the prefix, then blocks as `r0c1` or `r0-1c2-3`.

    Args:
        grid: patch rows and columns.
        prefix: names of the tokens before the first patch, or their number (CLS, prefix+1, prefix+2 ...).
        max_tokens: as in `pool_patterns`.
    """
    if isinstance(prefix, int):
        prefix = ["CLS", *(f"prefix+{place}" for place in range(1, prefix))][:prefix]
    factor = pooling_factor(grid, len(prefix), max_tokens)

    def span(start: int, end: int) -> str:
        last = min(start + factor, end) - 1
        return str(start) if last == start else f"{start}-{last}"

    return [*prefix] + [
        f"r{span(row, grid[0])}c{span(col, grid[1])}"
        for row in range(0, grid[0], factor)
        for col in range(0, grid[1], factor)
    ]
