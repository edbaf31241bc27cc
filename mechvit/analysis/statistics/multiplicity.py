"""Several p-values at once: false discoveries, family-wise errors, and intervals of what was selected.

NaN (no p-value) stays NaN and counts as no test.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from mechvit.arguments import checked
from mechvit.settings_checks import LEVEL_RANGE, check_number

RATE = 0.05
"""Default rate of false discoveries."""


@checked
def benjamini_hochberg(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return the smallest false discovery rate at which each test is called.

    Raises:
        ValueError: p-values outside [0, 1].

    Source: Benjamini and Hochberg, Journal of the Royal Statistical Society B 57 (1995), as scipy computes it.
    """
    from scipy.stats import false_discovery_control

    known = _known(p)
    found = np.full(len(p), np.nan)
    if known.any():
        found[known] = false_discovery_control(p[known])
    return found


@checked
def holm(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return the smallest family-wise error rate at which each test is called, whatever their dependence.

    Raises:
        ValueError: p-values outside [0, 1].

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    known = np.flatnonzero(_known(p))
    order = known[np.argsort(p[known], kind="stable")]
    found = np.full(len(p), np.nan)
    found[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return found


@checked
def selected_level(p: Float[np.ndarray, " tests"], rate: float = RATE) -> tuple[Bool[np.ndarray, " tests"], float]:
    """Return which tests are called at a false discovery rate, and the level of their intervals.

    With R of m tests called, intervals of level 1 - R rate / m keep the expected share of called ones that miss their
    parameter below the rate; such an interval excludes the tested value exactly where its test is called. Where none is
    called, the level is that of a single call, 1 - rate / m.

    Raises:
        ValueError: no p-value, p-values outside [0, 1], or a rate outside (0, 1).

    Source: Benjamini and Yekutieli, Journal of the American Statistical Association 100 (2005).
    """
    check_number("rate", rate, LEVEL_RANGE)
    tests = int(_known(p).sum())
    if tests == 0:
        raise ValueError("the level of selected intervals needs a p-value; got none")
    called = benjamini_hochberg(p) <= rate
    return called, 1 - max(int(called.sum()), 1) * rate / tests


def _known(p: np.ndarray) -> np.ndarray:
    """Return which p-values there are; refuse others than numbers from 0 to 1."""
    known = ~np.isnan(p)
    if wrong := int((~((p[known] >= 0) & (p[known] <= 1))).sum()):
        raise ValueError(f"p-values lie between 0 and 1; {wrong} of {len(p)} do not")
    return known
