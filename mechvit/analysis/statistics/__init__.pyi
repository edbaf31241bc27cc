from .bootstrap import Interval, interval, resampled_means
from .clusters.cluster_folds import cluster_folds, cluster_half
from .clusters.cluster_t import cluster_jackknife, cluster_ratio, cluster_t
from .clusters.design import Design
from .clusters.estimates import Estimates
from .clusters.fieller import FiellerIntervals, fieller
from .clusters.linearised import Linearised, jackknifed, linearised_means, linearised_ratios
from .clusters.seeds import by_seed, over_seeds, seed_and_cluster_interval
from .correlation import permutation_p, rank_correlation
from .multiplicity import benjamini_hochberg, holm, selected_level
from .nulls.empirical_fdr import empirical_fdr
from .nulls.moderation import ModeratedVariances, moderated_variances
from .nulls.prediction_limits import PredictionLimits, prediction_limits, seed_limits, with_null
from .power import chance_above, chance_within, clusters_needed
from .verdicts import all_above, all_within

__all__ = [
    "Design",
    "Estimates",
    "FiellerIntervals",
    "Interval",
    "Linearised",
    "ModeratedVariances",
    "PredictionLimits",
    "all_above",
    "all_within",
    "benjamini_hochberg",
    "by_seed",
    "chance_above",
    "chance_within",
    "cluster_folds",
    "cluster_half",
    "cluster_jackknife",
    "cluster_ratio",
    "cluster_t",
    "clusters_needed",
    "empirical_fdr",
    "fieller",
    "holm",
    "interval",
    "jackknifed",
    "linearised_means",
    "linearised_ratios",
    "moderated_variances",
    "over_seeds",
    "permutation_p",
    "prediction_limits",
    "rank_correlation",
    "resampled_means",
    "seed_and_cluster_interval",
    "seed_limits",
    "selected_level",
    "with_null",
]
