"""Intervals of means, contrasts, ratios and other statistics over clustered images: t with clusters minus strata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from mechvit.analysis.statistics.bootstrap import LEVEL
from mechvit.arguments import checked

from .design import Design
from .estimates import Estimates
from .exact_bounds import chance_of_no_difference, share_that_may_differ
from .linearised import Linearised, Values, jackknifed, linearised_means, linearised_ratios

if TYPE_CHECKING:
    import pandas as pd

Level = float | Float[np.ndarray, " statistics"]


@checked
def cluster_t(
    values: Values,
    design: Design,
    *,
    where: Bool[np.ndarray, "images statistics"] | None = None,
    bounds: tuple[float, float] | None = None,
    level: Level = LEVEL,
    against: float = 0.0,
) -> Estimates:
    """Compute means over images with a variance between clusters, within strata.

    mean ± t sqrt(V), with V as in `Linearised` and clusters - strata degrees of freedom. A difference of two models on
    the same images is the mean of the images' differences. Where all images of a statistic have one outcome, V is 0,
    and the interval is exact (`exact_bounds`) if the outcome has `bounds`, else NaN: no spread was seen, which is no
    evidence that there is none.

    Args:
        values: one row an image, in the order of the design's labels (`Design.of`: of image_id).
        design: the units.
        where: the images that each statistic is the mean of; all when None.
        bounds: smallest and largest outcome that an image can have: (0, 1) for a right answer, (-1, 1) for the
            difference of two; None where there are none.
        level: coverage, of all or of each statistic.
        against: the value that p-values are for.

    Raises:
        ValueError: as in `Design` and `Units`; values that are not finite or outside the bounds.
    """
    found = linearised_means(values, design, where=where)
    estimates = estimated(found, level=level, against=against)
    if bounds is None:
        return estimates
    counts = np.ones(values.shape, dtype=bool) if where is None else where
    counts = counts & (found.units.cluster >= 0)[:, None]
    return _with_exact_bounds(estimates, found, np.asarray(values, dtype=np.float64), counts, bounds)


@checked
def cluster_ratio(
    numerator: Values, denominator: Values, design: Design, *, level: Level = LEVEL, against: float = 0.0
) -> Estimates:
    """Compute ratios of sums over images, by linearisation; for a denominator that may be 0 use `fieller`.

    Raises:
        ValueError: as in `linearised_ratios`.
    """
    return estimated(linearised_ratios(numerator, denominator, design), level=level, against=against)


@checked
def cluster_jackknife(
    statistic: Callable[[Any], Any],
    rows: pd.DataFrame | np.ndarray,
    design: Design,
    *,
    level: Level = LEVEL,
    against: float = 0.0,
) -> Estimates:
    """Compute any statistic of a table by the delete-a-cluster jackknife (`jackknifed`).

    Raises:
        ValueError: as in `jackknifed`.
    """
    return estimated(jackknifed(statistic, rows, design), level=level, against=against)


def estimated(found: Linearised, *, level: Level = LEVEL, against: float = 0.0) -> Estimates:
    """Return the t intervals of linearised statistics."""
    return Estimates.by_t(
        found.value,
        found.variance,
        found.df,
        level=level,
        against=against,
        clusters=found.clusters,
        left_out=found.units.left_out,
    )


def _with_exact_bounds(
    estimates: Estimates, found: Linearised, values: np.ndarray, counts: np.ndarray, bounds: tuple[float, float]
) -> Estimates:
    """Return estimates with exact intervals where all outcomes of a statistic are equal."""
    lowest, highest = bounds
    if not lowest < highest:
        raise ValueError(f"bounds of an outcome are its smallest and largest value; got {bounds}")
    outside = counts & ((values < lowest) | (values > highest))
    if outside.any():
        raise ValueError(f"outcomes must lie within {bounds}; {int(outside.sum())} do not, as {values[outside][0]:g}")
    low, high, p = (column.copy() for column in (estimates.low, estimates.high, estimates.p))
    method = list(estimates.method)
    for place in range(len(estimates)):
        own = values[counts[:, place], place]
        if len(own) == 0 or (own != own[0]).any():
            continue
        sizes = found.units.sums(counts[:, place : place + 1].astype(np.float64))[:, 0]
        sizes = sizes[sizes > 0]
        differ = share_that_may_differ(sizes, float(estimates.level[place]))
        low[place] = own[0] - (own[0] - lowest) * differ
        high[place] = own[0] + (highest - own[0]) * differ
        p[place] = _exact_p(own[0], estimates.against, sizes, bounds)
        method[place] = "exact"
    return replace(estimates, low=low, high=high, p=p, method=tuple(method))


def _exact_p(outcome: float, against: float, sizes: np.ndarray, bounds: tuple[float, float]) -> float:
    """Return the p-value of a mean where all images have one outcome: twice the largest chance of that."""
    reach = outcome - bounds[0] if against < outcome else bounds[1] - outcome
    if against == outcome:
        return 1.0
    share = abs(against - outcome) / reach if reach > 0 else np.inf
    return min(1.0, 2 * chance_of_no_difference(sizes, share))
