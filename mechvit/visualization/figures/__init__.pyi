from .attention import entropy_difference, pattern_change
from .lens import class_probability, first_correct_difference, first_correct_layers, image_trajectories
from .performance import gains, table_one, transfer
from .saes import cosine_distances, cosine_distributions, training_curves

__all__ = [
    "class_probability",
    "cosine_distances",
    "cosine_distributions",
    "entropy_difference",
    "first_correct_difference",
    "first_correct_layers",
    "gains",
    "image_trajectories",
    "pattern_change",
    "table_one",
    "training_curves",
    "transfer",
]
