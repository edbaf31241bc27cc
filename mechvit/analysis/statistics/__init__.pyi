from .bootstrap import Interval, interval, resampled_means
from .clusters.cluster_t import cluster_jackknife, cluster_ratio, cluster_t
from .clusters.design import Design
from .clusters.estimates import Estimates
from .clusters.linearised import Linearised, jackknifed, linearised_means, linearised_ratios
from .correlation import permutation_p, rank_correlation
from .verdicts import all_above, all_within

__all__ = [
    "Design",
    "Estimates",
    "Interval",
    "Linearised",
    "all_above",
    "all_within",
    "cluster_jackknife",
    "cluster_ratio",
    "cluster_t",
    "interval",
    "jackknifed",
    "linearised_means",
    "linearised_ratios",
    "permutation_p",
    "rank_correlation",
    "resampled_means",
]
