"""Correlations of two lists of numbers in every resample of a bootstrap."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, "draws n"]


def correlation(x: Rows, y: Rows) -> Float[np.ndarray, " draws"]:
    """Pearson's correlation of each row of x with that of y; NaN where one of them is constant."""
    x, y = (values - values.mean(1, keepdims=True) for values in (x, y))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))


def rank_correlation(x: Rows, y: Rows) -> Float[np.ndarray, " draws"]:
    """Spearman's correlation of each row: Pearson's of the ranks, equal values sharing their mean rank."""
    from scipy.stats import rankdata

    return correlation(rankdata(x, axis=1), rankdata(y, axis=1))
