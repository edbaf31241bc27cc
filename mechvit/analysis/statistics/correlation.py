"""Correlations of two lists of numbers, for every resample of a bootstrap at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mechvit.arguments import checked
from mechvit.settings_checks import COUNT, check_number

from .bootstrap import interval, intervals, resampled_means

if TYPE_CHECKING:
    from torch import Tensor

Rows = Float[np.ndarray, "*draws n"]
PERMUTATIONS = 9999
"""Default number of permutations for a p-value."""


def correlation(x: Rows, y: Rows) -> Float[np.ndarray, "*draws"]:
    """Compute Pearson's correlation of each row of x with that of y; NaN where one is constant or contains NaN.

    Raises:
        ValueError: rows of different lengths.

    Source: Pearson, Proceedings of the Royal Society of London 58 (1895).
    """
    _check_paired(x, y)
    if x.shape[-1] == 0:
        return np.full(x.shape[:-1], np.nan)
    constant = (x == x[..., :1]).all(-1) | (y == y[..., :1]).all(-1)  # the mean of equal numbers may be another
    x, y = (values - values.mean(-1, keepdims=True) for values in (x, y))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.where(constant, np.nan, found)


@checked
def rank_correlation(x: Rows, y: Rows) -> Float[np.ndarray, "*draws"]:
    """Compute Spearman's correlation of each row of x with that of y; NaN where one is constant or contains NaN.

    Ties share their mean rank. Values that agree to twelve decimals are ties: differences of accuracies are multiples
    of one image's share and differ only by rounding.

    Source: Spearman, The American Journal of Psychology 15 (1904).
    """
    return correlation(_ranks(x), _ranks(y))


def agreement(exact: Rows, approximate: Rows) -> dict[str, Float[np.ndarray, "*draws"]]:
    """Compare approximate effects with exact ones, in every row.

    Returns:
        pearson and spearman (for three or more effects), and relative_error, |approximate - exact| / |exact| (L2).

    Raises:
        ValueError: rows of different lengths.
    """
    _check_paired(exact, approximate)
    found = {}
    if exact.shape[-1] > 2:
        found = {"pearson": correlation(exact, approximate), "spearman": rank_correlation(exact, approximate)}
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.asarray(np.linalg.norm(approximate - exact, axis=-1) / np.linalg.norm(exact, axis=-1))
    return found | {"relative_error": error}


@dataclass(frozen=True)
class PairedEffects:
    """Draws of exact and approximate mean effects, all over the same resamples of images."""

    exact: Float[np.ndarray, "draws effects"]
    approximate: Float[np.ndarray, "draws effects"]

    @classmethod
    def of(cls, exact: Tensor, approximate: Tensor, *, resamples: int, seed: int) -> PairedEffects:
        """Draw the means over images of two tensors [effects, images]."""
        both = np.concatenate([exact.numpy(), approximate.numpy()]).T
        means = resampled_means(both, resamples=resamples, seed=seed)
        return cls(means[:, : len(exact)], means[:, len(exact) :])

    def columns(self, level: float) -> dict[str, np.ndarray]:
        """Return exact, approximate and error (approximate minus exact), each with _low and _high, by effect."""
        columns: dict[str, np.ndarray] = {}
        drawn = {"exact": self.exact, "approximate": self.approximate, "error": self.approximate - self.exact}
        for name, draws in drawn.items():
            columns |= dict(zip((name, f"{name}_low", f"{name}_high"), intervals(draws, level), strict=True))
        return columns

    def agreements(self, kinds: Sequence[str], level: float) -> list[tuple[str, int, str, float, float, float]]:
        """Return (kind, number of effects, quantity, value, low, high) of all effects, and of each kind if several."""
        rows = []
        several = list(dict.fromkeys(kinds))
        for kind in ["all", *(several if len(several) > 1 else [])]:
            chosen = [place for place, own in enumerate(kinds) if kind in ("all", own)]
            found = agreement(self.exact[:, chosen], self.approximate[:, chosen])
            rows += [(kind, len(chosen), name, *interval(drawn, level)) for name, drawn in found.items()]
        return rows


@checked
def permutation_p(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Compute the p-value of Spearman's correlation by a two-sided permutation test; NaN where there is no correlation.

    p = (1 + count) / (1 + permutations), where count is the number of random pairings whose correlation is at least as
    far from 0.

    Source: Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010).
    """
    check_number("permutations", permutations, COUNT)
    ranks, other = _ranks(x), _ranks(y)
    own = float(correlation(ranks, other))
    if np.isnan(own):
        return own
    shuffled = np.random.default_rng(seed).permuted(np.tile(ranks, (permutations, 1)), axis=1)
    beyond = np.abs(correlation(shuffled, np.broadcast_to(other, shuffled.shape))) >= abs(own) - 1e-12
    return float((1 + beyond.sum()) / (1 + permutations))


def _check_paired(x: Rows, y: Rows) -> None:
    """Refuse two lists that would be stretched to one length."""
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"numbers are compared in pairs; got {x.shape[-1]} and {y.shape[-1]}")


def _ranks(rows: Rows) -> Rows:
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(np.round(rows, 12), axis=-1), dtype=np.float64)
    return np.where(np.isnan(rows).any(-1, keepdims=True), np.nan, ranks)
