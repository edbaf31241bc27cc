"""Fieller's interval of a ratio of two means over clustered images, for shares whose denominator may be near 0.

The interval holds the ratios R for which mean(y) - R mean(x) is not significantly different from 0:
(Y - R X)^2 <= t^2 (V_yy - 2 R V_xy + R^2 V_xx). Where X itself differs significantly from 0 these lie between two
limits. Otherwise they are everything but an interval, or everything: the data set no limit, and none is made up.

Source: Fieller, Journal of the Royal Statistical Society B 16 (1954).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mechvit.analysis.statistics.bootstrap import LEVEL
from mechvit.arguments import checked
from mechvit.settings_checks import LEVEL_RANGE, check_number

from .design import Design
from .estimates import GIVEN_WEIGHTS
from .linearised import Linearised, Values, linearised_means

if TYPE_CHECKING:
    import pandas as pd

BOUNDED, OUTSIDE, EVERYTHING, UNKNOWN = "bounded", "all but an interval", "unbounded", "none"


@dataclass(frozen=True)
class FiellerIntervals:
    """Ratios with Fieller's intervals, one entry a ratio."""

    value: Float[np.ndarray, " ratios"]
    low: Float[np.ndarray, " ratios"]
    high: Float[np.ndarray, " ratios"]
    """Limits; infinite where the ratio is not bounded."""
    kind: tuple[str, ...]
    """`bounded`; `all but an interval`: ratios strictly between gap_low and gap_high are excluded; `unbounded`: none
    is; `none`: no spread in one of the two means, or too few clusters (the limits are NaN)."""
    gap_low: Float[np.ndarray, " ratios"]
    gap_high: Float[np.ndarray, " ratios"]
    """Ends of the ratios that are excluded; NaN where there is no gap."""
    df: Float[np.ndarray, " ratios"]
    level: float
    covers: str = GIVEN_WEIGHTS

    def __repr__(self) -> str:
        return f"FiellerIntervals({sum(kind == BOUNDED for kind in self.kind)} of {len(self.kind)} bounded)"

    def to_frame(self, **labels: object) -> pd.DataFrame:
        """Return value, low, high, kind, gap_low, gap_high, df and covers, one row a ratio."""
        import pandas as pd

        names = ("value", "low", "high", "kind", "gap_low", "gap_high", "df")
        columns = {name: getattr(self, name) for name in names} | {"covers": self.covers}
        return pd.DataFrame(labels | columns, index=range(len(self.kind)))


@checked
def fieller(numerator: Values, denominator: Values, design: Design, *, level: float = LEVEL) -> FiellerIntervals:
    """Compute ratios of means over images with Fieller's intervals, t having clusters - strata degrees of freedom.

    Args:
        numerator, denominator: one row an image, in the order of the design's labels; a share of a gain has the
            differences of two models in both.
        design: the units.
        level: coverage.

    Raises:
        ValueError: as in `Design` and `Units`; arrays of different shapes, or values that are not finite.
    """
    if numerator.shape != denominator.shape:
        raise ValueError(f"each numerator has its denominator; got {numerator.shape} and {denominator.shape}")
    both = np.concatenate([np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)], axis=1)
    return fieller_of(linearised_means(both, design), level=level)


def fieller_of(means: Linearised, *, level: float = LEVEL) -> FiellerIntervals:
    """Return Fieller's intervals of linearised statistics: the first half over the second half, in order.

    Raises:
        ValueError: an odd number of statistics.
    """
    from scipy.stats import t

    check_number("level", level, LEVEL_RANGE)
    if len(means.value) % 2:
        raise ValueError(f"ratios need as many denominators as numerators; got {len(means.value)} statistics")
    half = len(means.value) // 2
    y, x = means.value[:half], means.value[half:]
    own = np.arange(half)
    vyy, vxx, vxy = means.variance[:half], means.variance[half:], means.covariance[own, half + own]
    df = np.minimum(means.df[:half], means.df[half:])
    squared = np.square(t.ppf((1 + level) / 2, np.where(df > 0, df, np.nan)))
    rows = [_roots(*row) for row in zip(x**2 - squared * vxx, x * y - squared * vxy, y**2 - squared * vyy, strict=True)]
    kinds = [UNKNOWN if vyy[i] == 0 or vxx[i] == 0 else kind for i, (kind, *_) in enumerate(rows)]
    limits = np.array([_limits(kind, *row[1:]) for kind, row in zip(kinds, rows, strict=True)]).reshape(half, 4)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(x == 0, np.nan, y / x)
    return FiellerIntervals(value, limits[:, 0], limits[:, 1], tuple(kinds), limits[:, 2], limits[:, 3], df, level)


def _roots(a: float, b: float, c: float) -> tuple[str, float, float]:
    """Return the kind of {R: a R^2 - 2 b R + c <= 0}, and its ends in order."""
    root = b * b - a * c
    if np.isnan(root):
        return UNKNOWN, np.nan, np.nan
    if a <= 0 and root <= 0:
        return EVERYTHING, np.nan, np.nan
    if a == 0:  # a half-line, whose other end is infinite
        end = c / (2 * b)
        return BOUNDED, *((end, np.inf) if b > 0 else (-np.inf, end))
    far = b + np.copysign(np.sqrt(max(root, 0.0)), b)
    ends = sorted((far / a, c / far if far else 0.0))
    return (BOUNDED if a > 0 else OUTSIDE), *ends


def _limits(kind: str, first: float, second: float) -> tuple[float, float, float, float]:
    """Return low, high, and the ends of the gap."""
    if kind == BOUNDED:
        return first, second, np.nan, np.nan
    if kind == OUTSIDE:
        return -np.inf, np.inf, first, second
    end = np.inf if kind == EVERYTHING else np.nan
    return -end, end, np.nan, np.nan
