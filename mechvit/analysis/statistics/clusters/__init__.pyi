from .cluster_t import cluster_jackknife, cluster_ratio, cluster_t
from .design import Design
from .estimates import Estimates
from .linearised import Linearised, jackknifed, linearised_means, linearised_ratios

__all__ = [
    "Design",
    "Estimates",
    "Linearised",
    "cluster_jackknife",
    "cluster_ratio",
    "cluster_t",
    "jackknifed",
    "linearised_means",
    "linearised_ratios",
]
