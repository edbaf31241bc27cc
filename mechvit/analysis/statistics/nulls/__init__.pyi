from .empirical_fdr import empirical_fdr
from .moderation import ModeratedVariances, moderated_variances
from .prediction_limits import PredictionLimits, prediction_limits, seed_limits, with_null

__all__ = [
    "ModeratedVariances",
    "PredictionLimits",
    "empirical_fdr",
    "moderated_variances",
    "prediction_limits",
    "seed_limits",
    "with_null",
]
