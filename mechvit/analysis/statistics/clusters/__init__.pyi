from .cluster_folds import cluster_folds, cluster_half
from .cluster_t import cluster_jackknife, cluster_ratio, cluster_t
from .design import Design
from .estimates import Estimates
from .fieller import FiellerIntervals, fieller
from .linearised import Linearised, jackknifed, linearised_means, linearised_ratios
from .seeds import by_seed, over_seeds, seed_and_cluster_interval

__all__ = [
    "Design",
    "Estimates",
    "FiellerIntervals",
    "Linearised",
    "by_seed",
    "cluster_folds",
    "cluster_half",
    "cluster_jackknife",
    "cluster_ratio",
    "cluster_t",
    "fieller",
    "jackknifed",
    "linearised_means",
    "linearised_ratios",
    "over_seeds",
    "seed_and_cluster_interval",
]
