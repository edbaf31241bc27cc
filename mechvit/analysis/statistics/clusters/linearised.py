"""Statistics of clustered images to first order: a value, and what each cluster adds to its error.

For a statistic T the influence z_c of cluster c is such that T - E T is nearly the sum of z_c - E z_c, so that the
within-stratum variance of z estimates the variance of T: V = sum over strata of n / (n - 1) sum (z_c - mean)^2.

    mean            z_c = sum over the cluster's images of (y - mean) / N
    ratio R of sums z_c = sum of (y - R x) / sum x
    any T           z_c = (1 - N_c / N) (T - T without the cluster), which is exact for means

Source: Binder, International Statistical Review 51 (1983), for linearisation; Shao and Tu, The Jackknife and Bootstrap
(1995), chapter 6, for the jackknife in strata. With one stratum of clusters of one size the last line's V is the
delete-a-group jackknife's (G - 1) / G sum (T_c - mean)^2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from mechvit.arguments import checked

from .design import Design, Units

if TYPE_CHECKING:
    import pandas as pd

Values = Num[np.ndarray, "images statistics"] | Bool[np.ndarray, "images statistics"]


@dataclass(frozen=True)
class Linearised:
    """Values of several statistics, and their influences by cluster."""

    value: Float[np.ndarray, " statistics"]
    influence: Float[np.ndarray, "clusters statistics"]
    holds: Bool[np.ndarray, "clusters statistics"]
    """Whether a cluster has images that count for a statistic."""
    units: Units

    @property
    def covariance(self) -> Float[np.ndarray, "statistics statistics"]:
        """Covariance of the values."""
        deviations = self.units.deviations(self.influence)
        return deviations.T @ deviations

    @property
    def variance(self) -> Float[np.ndarray, " statistics"]:
        """Variance of each value; 0 where its influences differ by rounding alone."""
        variance = np.square(self.units.deviations(self.influence)).sum(0)
        rounding = 1e-14 * np.maximum(np.abs(self.value), np.abs(self.influence).sum(0))
        return np.where(variance > np.square(rounding), variance, 0.0)

    @property
    def clusters(self) -> Int[np.ndarray, " statistics"]:
        """Number of clusters that hold images of each statistic."""
        return self.holds.sum(0)

    @property
    def df(self) -> Float[np.ndarray, " statistics"]:
        """Degrees of freedom: clusters that hold images of a statistic, minus the strata of these."""
        strata = [len(np.unique(self.units.stratum[held])) for held in self.holds.T]
        return (self.clusters - np.array(strata, dtype=np.int64)).astype(np.float64)

    def contrasts(self, weights: Float[np.ndarray, "contrasts statistics"]) -> Linearised:
        """Return weighted sums of the statistics, paired by cluster.

        Raises:
            ValueError: weights that are not finite, or of another number of statistics.
        """
        if weights.shape[1] != len(self.value):
            raise ValueError(f"a contrast weighs {len(self.value)} statistics; got {weights.shape[1]} weights")
        if not np.isfinite(weights).all():
            raise ValueError("the weights of a contrast must be finite")
        holds = np.stack([self.holds[:, row != 0].any(1) for row in weights], axis=1)
        return replace(self, value=weights @ self.value, influence=self.influence @ weights.T, holds=holds)


@checked
def linearised_means(
    values: Values, design: Design, *, where: Bool[np.ndarray, "images statistics"] | None = None
) -> Linearised:
    """Compute means over images, or over those of each statistic's own set, linearised.

    Args:
        values: one row an image, in the order of the design's labels.
        design: the units.
        where: the images that each statistic is the mean of; all when None. A mean over no image is NaN.

    Raises:
        ValueError: as in `Design` and `Units`; values that are not finite, where they count.
    """
    counts = np.ones(values.shape, dtype=bool) if where is None else where
    check_finite_values("values", values, counts)
    return linearised_ratios(np.where(counts, values, 0), counts, design)


@checked
def linearised_ratios(numerator: Values, denominator: Values, design: Design) -> Linearised:
    """Compute ratios of sums over images, linearised: sum of numerator / sum of denominator; NaN where the latter is 0.

    A cluster counts for a ratio where one of its images has a denominator other than 0.

    Raises:
        ValueError: as in `linearised_means`; arrays of different shapes.
    """
    if numerator.shape != denominator.shape:
        raise ValueError(f"each numerator has its denominator; got {numerator.shape} and {denominator.shape}")
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    check_finite_values("a ratio's values", np.concatenate([top, bottom]), None)
    units = Units.of(design, len(top))
    kept = units.cluster >= 0
    total = bottom[kept].sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(total == 0, np.nan, top[kept].sum(0) / total)
        influence = units.sums(top - np.where(bottom == 0, 0.0, value * bottom)) / np.where(total == 0, np.nan, total)
    return Linearised(value, influence, units.holding(bottom != 0), units)


@checked
def jackknifed(statistic: Callable[[Any], Any], rows: pd.DataFrame | np.ndarray, design: Design) -> Linearised:
    """Compute any statistic of a table, linearised by leaving out one cluster at a time.

    The statistic should be smooth in the images' weights: it is for a calibration error away from 0, CKA and
    Wasserstein's distance of unlike distributions, and less so for a Kolmogorov-Smirnov distance, whose largest gap may
    change its place; where both distributions may be the same, compare with null models instead.

    Args:
        statistic: takes some of the rows, in order, and returns a number or a list of numbers.
        rows: a table or an array, one row an image, in the order of the design's labels.
        design: the units.

    Raises:
        ValueError: as in `Design` and `Units`; a statistic that is not finite, or changes its shape.
    """
    units = Units.of(design, len(rows))
    value = _read(statistic, _taken(rows, units.cluster >= 0), None)
    share = units.sizes / units.images
    left_out = [
        _read(statistic, _taken(rows, (units.cluster >= 0) & (units.cluster != number)), len(value))
        for number in range(units.clusters)
    ]
    influence = (1 - share)[:, None] * (value - np.stack(left_out))
    return Linearised(value, influence, np.ones(influence.shape, dtype=bool), units)


def check_finite_values(what: str, values: np.ndarray, where: np.ndarray | None) -> None:
    """Refuse values that are NaN or infinite, where they count."""
    wrong = ~np.isfinite(values) & (True if where is None else where)
    if wrong.any():
        raise ValueError(f"{what} must be finite; {int(wrong.sum())} of {wrong.size} are not")


def _taken(rows: Any, chosen: np.ndarray) -> Any:
    return rows.loc[chosen] if hasattr(rows, "loc") else rows[chosen]


def _read(statistic: Callable[[Any], Any], rows: Any, expected: int | None) -> np.ndarray:
    found = np.atleast_1d(np.asarray(statistic(rows), dtype=np.float64))
    if found.ndim != 1 or (expected is not None and len(found) != expected):
        raise ValueError(f"a statistic returns as many numbers for fewer images; got an array of shape {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(
            f"a statistic must be finite for all images and without each cluster; it is {found.tolist()} for "
            f"{len(rows)} of them"
        )
    return found
