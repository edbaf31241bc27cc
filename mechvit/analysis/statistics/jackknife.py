"""The delete-a-group jackknife: intervals of statistics that are not means over images, from leaving groups out."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .bootstrap import LEVEL


def jackknife_interval(
    value: Float[Tensor, "*layers pair"],
    left_out: Float[Tensor, "group *layers pair"],
    level: float = LEVEL,
    lowest: float = -torch.inf,
    highest: float = torch.inf,
) -> tuple[Float[Tensor, "*layers pair"], Float[Tensor, "*layers pair"]]:
    """Compute value ± t sqrt((G - 1) / G sum over groups of (left_out - their mean)²), with t of G - 1 degrees of
    freedom.

    Args:
        value: the statistic of all images.
        left_out: the statistic again, without each of G groups of images of (nearly) one size, drawn at random.
        level: coverage of the interval.
        lowest, highest: bounds of the statistic.

    Raises:
        ValueError: a level outside (0, 1).

    Source: Wolter, Introduction to Variance Estimation (2007), chapter 4; for functions of U-statistics Arvesen, Annals
    of Mathematical Statistics 40 (1969).
    """
    from scipy.stats import t

    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1; got {level}")
    groups = len(left_out)
    error = ((groups - 1) / groups * (left_out - left_out.mean(0)).square().sum(0)).sqrt()
    reach = float(t.ppf((1 + level) / 2, groups - 1)) * error
    return (value - reach).clamp(lowest, highest), (value + reach).clamp(lowest, highest)
