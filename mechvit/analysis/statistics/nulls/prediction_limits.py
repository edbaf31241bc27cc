"""Limits within which one more null model would fall, from a few that were made.

Null models differ from the base in all that the tuned model does, but for what is asked about: they were tuned on clean
images by the same recipe, with other seeds. Of n nulls with mean m and deviation s, one more lies within
m ± t s sqrt(1 + 1/n) in 95% of cases; it lies outside the range of two in two of three. Moderated over 12 rows,
limits cover 93% with two nulls and 94% with five, and are 28% and 88% as wide as plain ones
(`benchmarks/interval_coverage.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mechvit.analysis.statistics.bootstrap import LEVEL
from mechvit.analysis.statistics.tidy_tables import check_columns, check_known
from mechvit.arguments import checked
from mechvit.settings_checks import LEVEL_RANGE, check_number

from .moderation import moderated_variances

if TYPE_CHECKING:
    import pandas as pd

NULL = "null"
"""The column that names a row's null model."""
COLUMNS = ("null_low", "null_high", "z_null", "null_df")


@dataclass(frozen=True)
class PredictionLimits:
    """Differences beside the limits for one more null model, one entry a row; NaN where nulls show no spread."""

    low: Float[np.ndarray, " rows"]
    high: Float[np.ndarray, " rows"]
    z: Float[np.ndarray, " rows"]
    """(difference - mean of the nulls) / (s sqrt(1 + 1/n)), to be read with `df`: no normal deviate."""
    df: Float[np.ndarray, " rows"]
    level: float

    @property
    def p(self) -> Float[np.ndarray, " rows"]:
        """Two-sided p-values of "the difference is one of the nulls'"."""
        from scipy.stats import t

        return np.asarray(2 * t.sf(np.abs(self.z), self.df))

    @property
    def outside(self) -> int:
        """Number of differences outside their limits."""
        return int((self.p < 1 - self.level).sum())

    def __repr__(self) -> str:
        return f"PredictionLimits({self.outside} of {len(self.z)} differences outside)"

    def to_frame(self) -> pd.DataFrame:
        """Return null_low, null_high, z_null and null_df, one row a difference."""
        import pandas as pd

        return pd.DataFrame(dict(zip(COLUMNS, (self.low, self.high, self.z, self.df), strict=True)))


@checked
def prediction_limits(
    nulls: Float[np.ndarray, "n rows"],
    difference: Float[np.ndarray, " rows"],
    *,
    moderate: bool = True,
    level: float = LEVEL,
) -> PredictionLimits:
    """Compute mean ± t s sqrt(1 + 1/n) of nulls, and where differences lie in these terms.

    Args:
        nulls: the same differences of n null models.
        difference: of the tuned model; NaN where it is not known.
        moderate: draw the variances of the rows towards a common value (`moderated_variances`), which asks for rows of
            one kind: the layers, heads or latents of one quantity; t has d0 + n - 1 degrees of freedom, at most
            rows (n - 1). A single row has the plain t, of n - 1.
        level: coverage of the limits.

    Raises:
        ValueError: fewer than two nulls, another number of rows, or nulls that are not finite.
    """
    _check_repetitions("null", nulls, difference)
    n = len(nulls)
    variance, df = _spread(nulls, moderate)
    return _limits(nulls.mean(0), variance * (1 + 1 / n), df, difference, level)


@checked
def seed_limits(
    seeds: Float[np.ndarray, "n rows"], difference: Float[np.ndarray, " rows"], *, level: float = LEVEL
) -> PredictionLimits:
    """Compute 0 ± t s sqrt(2), the limits of a difference between two trainings that differ in their seed alone.

    s is the deviation of each row over the K seeds, and t has K - 1 degrees of freedom.

    Args:
        seeds: a quantity of the models of K training seeds.
        difference: of two other models, which asks whether it is more than another seed's; NaN where it is not known.
        level: coverage of the limits.

    Raises:
        ValueError: as in `prediction_limits`.
    """
    _check_repetitions("training seed", seeds, difference)
    variance, df = _spread(seeds, moderate=False)
    return _limits(np.zeros(len(difference)), variance * 2, df, difference, level)


@checked
def with_null(
    table: pd.DataFrame,
    nulls: pd.DataFrame,
    *,
    on: Sequence[str],
    value: str,
    within: Sequence[str] = (),
    level: float = LEVEL,
) -> pd.DataFrame:
    """Return a table of differences with the columns null_low, null_high, z_null and null_df.

    Args:
        table: differences; several rows may have the same keys (of several tuned models).
        nulls: the same table of null models, which the column `null` names; rows of the table that no null has (a share
            of a gain, where nulls gain nothing) keep NaN.
        on: columns that name a row in both: corruption, layer, head.
        value: the column of the difference in both.
        within: those of `on` whose values have units or scales of their own (a quantity), so that variances are
            moderated among their rows alone.
        level: coverage of the limits.

    Raises:
        ValueError: as in `prediction_limits`; a missing column, columns that the table has already, rows of a null that
            appear twice, or that other nulls lack, or no row of the table that the nulls have.
    """
    import pandas as pd

    if missing := set(within) - set(on):
        raise ValueError(f"rows are set apart within columns that name them; {sorted(missing)} is not among {list(on)}")
    check_known(table, *on)
    check_known(nulls, NULL, *on)
    check_columns(table, value)
    check_columns(nulls, value)
    if taken := sorted(set(COLUMNS) & set(table.columns)):
        raise ValueError(f"the table has null limits already: {', '.join(taken)}")
    wide = _wide(nulls, on, value)
    rows = wide.index.get_indexer(pd.MultiIndex.from_frame(table[list(on)]))
    if (rows < 0).all():
        first, theirs = (", ".join(map(str, key)) for key in (table[list(on)].iloc[0].tolist(), wide.index[0]))
        raise ValueError(
            f"no row of the table has a null: its first {', '.join(on)} is {first}; the nulls' is {theirs}"
        )
    group = wide.index.to_frame(index=False).groupby(list(within)).ngroup() if within else np.zeros(len(wide), int)
    columns = np.full((len(COLUMNS), len(table)), np.nan)
    group_of_row = np.where(rows >= 0, np.asarray(group)[rows], -1)
    for one in np.unique(group_of_row[group_of_row >= 0]):
        keys, own = np.flatnonzero(np.asarray(group) == one), np.flatnonzero(group_of_row == one)
        values = wide.to_numpy(dtype=np.float64)[keys].T
        variance, df = _spread(values, moderate=True)
        place = np.searchsorted(keys, rows[own])
        difference = table[value].to_numpy(dtype=np.float64)[own]
        found = _limits(values.mean(0)[place], variance[place] * (1 + 1 / len(values)), df[place], difference, level)
        columns[:, own] = found.to_frame().to_numpy().T
    return table.assign(**dict(zip(COLUMNS, columns, strict=True)))


def _wide(nulls: pd.DataFrame, on: Sequence[str], value: str) -> pd.DataFrame:
    """Return values with one row a key and one column a null."""
    import pandas as pd

    if nulls.duplicated([NULL, *on]).any():
        raise ValueError(f"a null has one row for each {', '.join(on)}; some appear twice")
    wide = nulls.pivot(index=list(on), columns=NULL, values=value)
    if wide.shape[1] < 2:
        raise ValueError(f"limits need two nulls or more; got {wide.shape[1]}")
    wrong = ~np.isfinite(wide.to_numpy(dtype=np.float64))
    if wrong.any():
        row, column = (int(place[0]) for place in np.nonzero(wrong))
        raise ValueError(
            f"{value} must be known and finite in every null; the row {wide.index[row]} of {wide.columns[column]!r} "
            "has none"
        )
    return wide.set_axis(pd.MultiIndex.from_frame(wide.index.to_frame(index=False)), axis=0)


def _spread(values: np.ndarray, moderate: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's variance over repetitions, and its degrees of freedom."""
    df = len(values) - 1
    variance = values.var(axis=0, ddof=1)
    rounding = 1e-14 * np.abs(values).max(axis=0)
    variance = np.where(variance > np.square(rounding), variance, 0.0)
    if not moderate:
        return variance, np.full(len(variance), float(df))
    found = moderated_variances(variance, df)
    return found.variance, np.full(len(variance), found.df)


def _limits(
    mean: np.ndarray, variance: np.ndarray, df: np.ndarray, difference: np.ndarray, level: float
) -> PredictionLimits:
    """Return mean ± t sqrt(variance); NaN where the variance is 0."""
    from scipy.stats import t

    check_number("level", level, LEVEL_RANGE)
    error = np.where(variance > 0, np.sqrt(variance), np.nan)
    reach = t.ppf((1 + level) / 2, df) * error
    return PredictionLimits(mean - reach, mean + reach, (difference - mean) / error, df, level)


def _check_repetitions(what: str, values: np.ndarray, difference: np.ndarray) -> None:
    if len(values) < 2:
        raise ValueError(f"limits need two {what}s or more; got {len(values)}")
    if values.shape[1] != len(difference):
        raise ValueError(f"every {what} has the same rows; got {values.shape[1]} beside {len(difference)} differences")
    if wrong := int((~np.isfinite(values)).sum()):
        raise ValueError(f"the values of every {what} must be finite; {wrong} of {values.size} are not")
