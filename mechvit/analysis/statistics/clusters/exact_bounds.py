"""Bounds of a mean where all images have one outcome, so that no variance can be estimated.

Let cluster c hold the share w_c of all images and differ from the common outcome anywhere with chance p_c. Clusters are
independent, so none differs with chance P = prod (1 - p_c), and at most the share B = sum w_c p_c of images is expected
to differ. The largest B that P >= alpha / 2 allows is at 1 - p_c = min(1, m / w_c), with m where P = alpha / 2. For C
clusters of one size it is Clopper and Pearson's bound of no success in C trials, 1 - (alpha / 2)^(1 / C).

Source: Clopper and Pearson, Biometrika 26 (1934), for clusters of one size; the unequal ones by Lagrange's multiplier.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

LOWEST = -700.0
"""Logarithm of a chance that counts as none."""


def share_that_may_differ(sizes: Float[np.ndarray, " clusters"], level: float) -> float:
    """Return the largest expected share of images with another outcome, where none of these clusters shows one.

    Args:
        sizes: number of images of each cluster.
        level: coverage of the two-sided interval that the bound is an end of.
    """
    return _share(sizes, np.log((1 - level) / 2))


def chance_of_no_difference(sizes: Float[np.ndarray, " clusters"], share: float) -> float:
    """Return the largest chance that none of these clusters shows another outcome that a share of images has."""
    from scipy.optimize import brentq

    if share <= 0:
        return 1.0
    if share >= _share(sizes, LOWEST):
        return 0.0
    return float(np.exp(brentq(lambda chance: _share(sizes, chance) - share, LOWEST, 0.0)))


def _share(sizes: np.ndarray, log_chance: float) -> float:
    """Return sum w (1 - min(1, m / w)) at the m where sum log min(1, m / w) is a logarithm of a chance."""
    if log_chance >= 0:
        return 0.0
    weights = np.sort(sizes / sizes.sum())[::-1]
    logs = np.cumsum(np.log(weights))
    count = np.arange(1, len(weights) + 1)
    multiplier = (log_chance + logs) / count  # log m, if the `count` largest clusters are those above m
    above = np.append(np.log(weights[1:]), -np.inf) <= multiplier
    used = int(above.argmax()) + 1
    return float((weights[:used] - np.exp(multiplier[used - 1])).sum())
