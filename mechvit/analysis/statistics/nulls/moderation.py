"""Variances of many rows, each from few repetitions, drawn towards a common value by empirical Bayes.

The variances s^2 of rows, each with d degrees of freedom, are those of normal data whose true variances have a scaled
inverse chi-squared distribution of d0 degrees of freedom and scale s0^2. Then log s^2 has the mean
log s0^2 + psi(d / 2) - log(d / 2) - psi(d0 / 2) + log(d0 / 2) and the variance psi'(d / 2) + psi'(d0 / 2), from which
d0 and s0^2 follow. The moderated variance (d0 s0^2 + d s^2) / (d0 + d) has d0 + d degrees of freedom.

Source: Smyth, Statistical Applications in Genetics and Molecular Biology 3 (2004), sections 6.2 and 4; as in limma, d0
is infinite where log s^2 varies no more than by chance, s0^2 is then the mean of the variances, and the degrees of
freedom are never more than all rows have together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class ModeratedVariances:
    """Variances of rows with the prior that they are drawn towards."""

    variance: Float[np.ndarray, " rows"]
    df: float
    """Degrees of freedom of each moderated variance."""
    prior_df: float
    """d0: 0 for plain variances, infinite where rows differ no more than by chance."""
    prior_variance: float
    """s0^2; NaN for plain variances."""


def moderated_variances(variance: Float[np.ndarray, " rows"], df: int) -> ModeratedVariances:
    """Draw variances towards a common value; a single row stays as it is.

    Rows whose variance is 0 tell nothing of the common value, but are drawn towards it like the others.

    Args:
        variance: of each row, at least 0.
        df: degrees of freedom of each, at least 1.

    Raises:
        ValueError: variances that are negative or not finite, or no degree of freedom.
    """
    if df < 1:
        raise ValueError(f"a variance has one degree of freedom or more; got {df}")
    if not (np.isfinite(variance) & (variance >= 0)).all():
        raise ValueError("variances must be finite and at least 0")
    positive = variance[variance > 0]
    if len(positive) < 2:
        return ModeratedVariances(variance, float(df), 0.0, np.nan)
    prior_df, prior = _prior(positive, df)
    if np.isinf(prior_df):
        moderated = np.full(len(variance), prior)
    else:
        moderated = (prior_df * prior + df * variance) / (prior_df + df)
    return ModeratedVariances(moderated, min(prior_df + df, float(len(positive) * df)), prior_df, prior)


def _prior(variance: np.ndarray, df: int) -> tuple[float, float]:
    """Return d0 and s0^2, from the mean and the variance of log s^2."""
    from scipy.special import digamma, polygamma

    logs = np.log(variance) - digamma(df / 2) + np.log(df / 2)
    spread = float(logs.var(ddof=1) - polygamma(1, df / 2))
    if spread <= 0:
        return np.inf, float(variance.mean())
    half = inverse_trigamma(spread)
    return 2 * half, float(np.exp(logs.mean() + digamma(half) - np.log(half)))


def inverse_trigamma(value: float) -> float:
    """Return the x at which the trigamma function has a positive value, by Newton's method on its reciprocal.

    Source: Smyth (2004), appendix.
    """
    from scipy.special import polygamma

    if value > 1e7:
        return float(value**-0.5)
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if -step < 1e-10 * x:
            break
    return x
