"""Chances of a rule's verdict at a true effect, and the clusters that a rule needs to be won.

The estimate is normal about the effect, and its standard error is estimated with some degrees of freedom, as in
`cluster_t`. The effect, the errors, thresholds and margins are in one unit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mechvit.analysis.statistics.bootstrap import LEVEL
from mechvit.arguments import checked
from mechvit.settings_checks import COUNT, FINITE, LEVEL_RANGE, NOT_NEGATIVE, POSITIVE, check_number

MOST_CLUSTERS = 10_000_000
"""Number of clusters beyond which a rule counts as one that cannot be won."""
_POINTS = 400
"""Points of the integral over the estimated standard error."""


@checked
def chance_above(effect: float, error: float, df: float, *, threshold: float = 0.0, level: float = LEVEL) -> float:
    """Compute the chance that the interval of an estimate lies above a threshold, by the noncentral t distribution.

    Args:
        effect: the true effect.
        error: the true standard error of its estimate.
        df: degrees of freedom of the estimated error.
        threshold: the value to lie above; for "below" give the effect and the threshold with their signs changed.
        level: coverage of the two-sided interval.

    Raises:
        SettingError: an error or df that is not positive, or a level outside (0, 1).
    """
    from scipy.stats import nct, t

    _check(effect, error, df, level)
    check_number("threshold", threshold, FINITE)
    return float(nct.sf(t.ppf((1 + level) / 2, df), df, (effect - threshold) / error))


@checked
def chance_within(effect: float, error: float, df: float, *, margin: float, level: float = LEVEL) -> float:
    """Compute the chance that the interval of an estimate lies within -margin to margin (an equivalence test).

    Given the estimated error s, the estimate has to lie within margin - t s of 0; the chance is integrated over the
    distribution of s.

    Raises:
        SettingError: as in `chance_above`; a negative margin.
    """
    from scipy.stats import chi2, norm, t

    _check(effect, error, df, level)
    check_number("margin", margin, NOT_NEGATIVE)
    nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
    critical = float(t.ppf((1 + level) / 2, df))
    most = float(chi2.cdf(df * (margin / (critical * error)) ** 2, df))  # chance that the interval is short enough
    shares = (nodes + 1) / 2 * most
    room = np.maximum(margin - critical * error * np.sqrt(chi2.ppf(shares, df) / df), 0.0)
    inside = norm.cdf((room - effect) / error) - norm.cdf((-room - effect) / error)
    return float(weights @ inside / 2 * most)


@checked
def clusters_needed(
    chance: Callable[[float, float], float], error: float, clusters: int, strata: int = 1, *, power: float = 0.8
) -> float:
    """Return the number of clusters with which a verdict has a chance of `power`; infinite where none is enough.

    The error falls with the root of the number of clusters, which is at least two a stratum, and the number of strata
    stays.

    Args:
        chance: the chance of the verdict by standard error and degrees of freedom, as
            `lambda error, df: chance_above(0.1, error, df)`; it grows with the number of clusters.
        error: the standard error with `clusters` clusters.
        clusters, strata: of the data that the error is of.
        power: the chance that is wanted.

    Raises:
        SettingError: numbers outside their ranges.
    """
    check_number("error", error, POSITIVE)
    check_number("clusters", clusters, COUNT)
    check_number("strata", strata, COUNT)
    check_number("power", power, LEVEL_RANGE)

    def enough(number: int) -> bool:
        return chance(error * (clusters / number) ** 0.5, float(number - strata)) >= power

    low, high = 2 * strata, 2 * strata
    while not enough(high):
        if high >= MOST_CLUSTERS:
            return np.inf
        low, high = high + 1, min(2 * high, MOST_CLUSTERS)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return float(high)


def _check(effect: float, error: float, df: float, level: float) -> None:
    check_number("effect", effect, FINITE)
    check_number("error", error, POSITIVE)
    check_number("df", df, POSITIVE)
    check_number("level", level, LEVEL_RANGE)
