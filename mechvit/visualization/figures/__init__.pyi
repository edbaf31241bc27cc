from .attention import entropy_difference, pattern_change
from .lens import class_probability, first_correct_difference, first_correct_layers
from .performance import gains, table_one, transfer
from .sae_quality import feature_density, frontier
from .saes import cosine_distances, cosine_distributions, training_curves

__all__ = [
    "class_probability",
    "cosine_distances",
    "cosine_distributions",
    "entropy_difference",
    "feature_density",
    "first_correct_difference",
    "first_correct_layers",
    "frontier",
    "gains",
    "pattern_change",
    "table_one",
    "training_curves",
    "transfer",
]
