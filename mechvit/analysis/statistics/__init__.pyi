from .bootstrap import Interval, interval, resampled_means
from .correlation import permutation_p, rank_correlation
from .verdicts import all_above, all_within

__all__ = [
    "Interval",
    "all_above",
    "all_within",
    "interval",
    "permutation_p",
    "rank_correlation",
    "resampled_means",
]
