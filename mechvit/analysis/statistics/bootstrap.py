"""Paired percentile bootstrap over images.

Every statistic here is a function of means over images. `resampled_means` returns those means for the sample itself and
for each resample; statistics computed from its rows (a difference of models, a ratio, a calibration error) are
resampled with it, and two statistics are paired because they share their resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from mechvit.arguments import checked
from mechvit.settings_checks import LEVEL_RANGE, RESAMPLES_RANGE, check_number

RESAMPLES = 2000
"""Default number of resamples for intervals."""
LEVEL = 0.95
"""Default coverage of intervals."""
_CHUNK = 2**22


class Interval(NamedTuple):
    """A statistic of the sample and its percentile interval, in the statistic's own unit."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@checked
def resampled_means(
    values: Num[np.ndarray, "images statistics"] | Bool[np.ndarray, "images statistics"],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Float[np.ndarray, "draws statistics"]:
    """Compute means over images of every column, for the sample and for resamples of its images with replacement.

    The counts of a resample are multinomial, so that all means are one matrix product. The same number of images,
    `resamples` and `seed` give the same resamples, whatever the columns.

    Args:
        values: one row per image, in the same order for everything that is compared; True counts as 1.
        resamples: number of resamples, at least 1.
        seed: seed of the counts.

    Returns:
        float64, 1 + resamples rows: row 0 is the sample itself. The others are NaN if there is one image, from which
        nothing is known of the variation.

    Raises:
        ValueError: no images, values that are not finite, or no resamples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    images = len(values)
    check_number("resamples", resamples, RESAMPLES_RANGE)
    if images == 0:
        raise ValueError("a bootstrap needs at least one image; got none")
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"values to resample must be finite; {int((~np.isfinite(values)).sum())} are not")
    if images == 1:
        return np.concatenate([values, np.full((resamples, values.shape[1]), np.nan)])
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // images)
    draws = [values.mean(0, keepdims=True)]
    for start in range(0, resamples, rows):
        drawn = generator.integers(images, size=(min(rows, resamples - start), images))
        offsets = np.arange(len(drawn))[:, None] * images
        counts = np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(drawn.shape)
        draws.append(counts @ values / images)
    return np.concatenate(draws)


@checked
def interval(draws: Float[np.ndarray, " draws"], level: float = LEVEL) -> Interval:
    """Return the percentile interval of a statistic's draws, of which the first is the sample's own value.

    Draws that are NaN (a mean over no image) are left out; where the sample's own is NaN, or all others are, so is the
    interval.

    Raises:
        ValueError: a level outside (0, 1), or no draw besides the sample's own.
    """
    check_number("level", level, LEVEL_RANGE)
    if len(draws) < 2:
        raise ValueError(f"an interval needs the sample's own value and at least one draw; got {len(draws)} in all")
    value = float(draws[0])
    if np.isnan(value) or np.isnan(draws[1:]).all():
        return Interval(value, np.nan, np.nan)
    tail = (1 - level) / 2
    low, high = np.nanquantile(draws[1:], [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def intervals(draws: Float[np.ndarray, "draws statistics"], level: float = LEVEL) -> Float[np.ndarray, "3 statistics"]:
    """Return each statistic's own value and the ends of its percentile interval, NaN where a draw is NaN."""
    check_number("level", level, LEVEL_RANGE)
    tail = (1 - level) / 2
    return np.stack([draws[0], *np.quantile(draws[1:], [tail, 1 - tail], axis=0)])
