"""Correlations of two lists of numbers, in every resample of a bootstrap at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mechvit.arguments import checked

Rows = Float[np.ndarray, "*draws n"]
PERMUTATIONS = 9999
"""Pairings that a p-value rests on unless told otherwise."""


def correlation(x: Rows, y: Rows) -> Float[np.ndarray, "*draws"]:
    """Pearson's correlation of each row of x with that of y; NaN where one of them is constant or has a NaN.

    Source: Pearson, Proceedings of the Royal Society of London 58 (1895).
    """
    x, y = (values - values.mean(-1, keepdims=True) for values in (x, y))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


@checked
def rank_correlation(x: Rows, y: Rows) -> Float[np.ndarray, "*draws"]:
    """Spearman's: Pearson's correlation of ranks (equals share their mean); NaN where all are equal or one is NaN.

    What differs by rounding alone, after the twelfth decimal, is equal: differences of accuracies are multiples of one
    image's share.

    Source: Spearman, The American Journal of Psychology 15 (1904).
    """
    return correlation(_ranks(x), _ranks(y))


def agreement(exact: Rows, approximate: Rows) -> dict[str, Float[np.ndarray, "*draws"]]:
    """How near approximate effects are to exact ones, in every row: pearson and spearman (of three or more), and
    relative_error, |approximate - exact| / |exact| (L2).
    """
    found = {}
    if exact.shape[-1] > 2:
        found = {"pearson": correlation(exact, approximate), "spearman": rank_correlation(exact, approximate)}
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(approximate - exact, axis=-1) / np.linalg.norm(exact, axis=-1)
    return found | {"relative_error": error}


@checked
def permutation_p(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """How often pairs made at random have a Spearman's correlation at least as far from 0: (1 + count) / (1 +
    permutations), two-sided; NaN where there is no correlation.

    Source: Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010).
    """
    ranks, other = _ranks(x), _ranks(y)
    own = float(correlation(ranks, other))
    if np.isnan(own):
        return own
    shuffled = np.random.default_rng(seed).permuted(np.tile(ranks, (permutations, 1)), axis=1)
    beyond = np.abs(correlation(shuffled, np.broadcast_to(other, shuffled.shape))) >= abs(own) - 1e-12
    return float((1 + beyond.sum()) / (1 + permutations))


def _ranks(rows: Rows) -> Rows:
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(np.round(rows, 12), axis=-1), dtype=np.float64)
    return np.where(np.isnan(rows).any(-1, keepdims=True), np.nan, ranks)
