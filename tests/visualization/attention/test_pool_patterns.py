from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.visualization.attention.pattern_pooling import block_of_token, pool_patterns, pooling_factor, token_names


def loop(pattern: np.ndarray, grid: tuple[int, int], n_prefix: int, factor: int) -> np.ndarray:
    """Sum over sources, mean over destinations, one pair of tokens at a time in float64."""
    columns = -(-grid[1] // factor)
    blocks = n_prefix + -(-grid[0] // factor) * columns

    def block(token: int) -> int:
        if token < n_prefix:
            return token
        row, column = divmod(token - n_prefix, grid[1])
        return n_prefix + (row // factor) * columns + column // factor

    tokens = len(pattern)
    members = [sum(block(token) == place for token in range(tokens)) for place in range(blocks)]
    pooled = np.zeros((blocks, blocks))
    for query in range(tokens):
        for key in range(tokens):
            pooled[block(query), block(key)] += float(pattern[query, key]) / members[block(query)]
    return pooled


@settings(max_examples=40, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    n_prefix=st.integers(0, 3),
    room=st.integers(1, 60),
    seed=st.integers(0, 2**16),
)
def test_pool_patterns_matches_float64_loop(grid, n_prefix, room, seed):
    tokens = n_prefix + grid[0] * grid[1]
    scores = np.random.default_rng(seed).exponential(size=(2, tokens, tokens)) ** 2
    patterns = scores / scores.sum(-1, keepdims=True)
    most = n_prefix + room
    pooled = pool_patterns(patterns, grid, n_prefix, most)
    factor = pooling_factor(grid, n_prefix, most)
    assert pooled.shape[-1] <= most
    assert (
        len(token_names(grid, n_prefix, most)) == pooled.shape[-1] == block_of_token(grid, n_prefix, factor).max() + 1
    )
    np.testing.assert_allclose(pooled.sum(-1), 1, rtol=1e-5)
    for got, pattern in zip(pooled, patterns, strict=True):
        np.testing.assert_allclose(got, loop(pattern, grid, n_prefix, factor), rtol=1e-5, atol=1e-7)


def test_the_smallest_sufficient_block_is_chosen():
    assert pooling_factor((14, 14), 1, 50) == 2
    assert pooling_factor((14, 14), 1, 197) == 1
    assert pooling_factor((14, 14), 1, 49) == 3
    assert pooling_factor((14, 14), 1, None) == 1


def test_token_names_of_uneven_blocks():
    assert token_names((3, 2), 2, 4) == ["CLS", "prefix+1", "r0-1c0-1", "r2c0-1"]
    assert token_names((1, 2), 0, None) == ["r0c0", "r0c1"]


@pytest.mark.parametrize(
    ("shape", "most", "message"),
    [
        ((9, 9), 50, "10 x 10 in their last dimensions .* got 9 x 9"),
        ((10, 10), 1, "max_tokens .* got 1: give 2 or more"),
    ],
)
def test_pool_patterns_rejects(shape, most, message):
    with pytest.raises(ValueError, match=message):
        pool_patterns(np.ones(shape), (3, 3), 1, most)
