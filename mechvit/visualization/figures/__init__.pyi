from .attention import entropy_difference, pattern_change
from .claims import claims_forest
from .fourier import fourier_map
from .lens import class_probability, first_correct_difference, first_correct_layers, image_trajectories
from .performance import gains, table_one, transfer
from .robustness import corruption_errors, corruption_spectra
from .sae_quality import feature_density, frontier
from .saes import cosine_distances, cosine_distributions, training_curves

__all__ = [
    "claims_forest",
    "class_probability",
    "corruption_errors",
    "corruption_spectra",
    "cosine_distances",
    "cosine_distributions",
    "entropy_difference",
    "feature_density",
    "first_correct_difference",
    "first_correct_layers",
    "fourier_map",
    "frontier",
    "gains",
    "image_trajectories",
    "pattern_change",
    "table_one",
    "training_curves",
    "transfer",
]
