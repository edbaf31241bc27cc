"""Estimates with their intervals, and the units that these rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from mechvit.analysis.statistics.bootstrap import Interval

if TYPE_CHECKING:
    import pandas as pd

GIVEN_WEIGHTS = "images, given these weights"
"""Scope of an interval over clusters."""
WITH_SEEDS = "images and training seeds"
"""Scope of an interval over clusters and seeds; the base model and the split of the images are held fixed."""


@dataclass(frozen=True)
class Estimates:
    """Values of several statistics with intervals, in the statistics' own units."""

    value: Float[np.ndarray, " statistics"]
    error: Float[np.ndarray, " statistics"]
    """Standard error; NaN where it is not known."""
    df: Float[np.ndarray, " statistics"]
    """Degrees of freedom of the standard error."""
    low: Float[np.ndarray, " statistics"]
    high: Float[np.ndarray, " statistics"]
    p: Float[np.ndarray, " statistics"]
    """Two-sided p-value of the value `against`."""
    level: Float[np.ndarray, " statistics"]
    """Coverage of each interval."""
    method: tuple[str, ...]
    """Kind of each interval: `t`, `exact` (all images have one outcome, which has bounds), or `none` (no spread and no
    bounds, or too few clusters: the limits are NaN)."""
    against: float
    clusters: Int[np.ndarray, " statistics"]
    """Number of clusters that each statistic reads."""
    covers: str = GIVEN_WEIGHTS
    """Scope: what varies in the repetitions that the intervals cover."""
    left_out: str = ""
    """The images that were left out, and why."""

    @classmethod
    def by_t(
        cls,
        value: np.ndarray,
        variance: np.ndarray,
        df: np.ndarray,
        *,
        level: float | np.ndarray,
        against: float,
        clusters: np.ndarray,
        covers: str = GIVEN_WEIGHTS,
        left_out: str = "",
    ) -> Estimates:
        """Return value ± t sqrt(variance), with t of `df` degrees of freedom; NaN where df or the variance is 0."""
        from scipy.stats import t

        levels = np.broadcast_to(np.asarray(level, dtype=np.float64), value.shape).copy()
        if not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"the level of an interval lies between 0 and 1; got {level}")
        known = (df > 0) & (variance > 0) & np.isfinite(value)
        error = np.where(known, np.sqrt(np.where(known, variance, 1.0)), np.nan)
        freedom = np.where(known, df, np.nan)
        reach = t.ppf((1 + levels) / 2, freedom) * error
        return cls(
            value=value,
            error=error,
            df=freedom,
            low=value - reach,
            high=value + reach,
            p=2 * t.sf(np.abs(value - against) / error, freedom),
            level=levels,
            method=tuple(np.where(known, "t", "none").tolist()),
            against=against,
            clusters=clusters,
            covers=covers,
            left_out=left_out,
        )

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, place: int) -> Interval:
        return Interval(float(self.value[place]), float(self.low[place]), float(self.high[place]))

    def __repr__(self) -> str:
        shown = ", ".join(str(self[place]) for place in range(min(len(self), 3)))
        return f"Estimates({shown}{', ...' if len(self) > 3 else ''}; over {self.covers})"

    def to_frame(self, **labels: object) -> pd.DataFrame:
        """Return value, low, high, error, df, p, level, method, clusters and covers, one row a statistic.

        Args:
            labels: columns put first: one value for all rows, or one a row.
        """
        import pandas as pd

        names = ("value", "low", "high", "error", "df", "p", "level", "method", "clusters")
        columns = {name: getattr(self, name) for name in names} | {"covers": self.covers}
        return pd.DataFrame(labels | columns, index=range(len(self)))
