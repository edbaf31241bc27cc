from .attention import entropy_difference, pattern_change
from .fourier import fourier_map
from .lens import class_probability, first_correct_difference, first_correct_layers, image_trajectories
from .patching import attribution_scatter, head_links, patching_map
from .performance import gains, table_one, transfer
from .robustness import corruption_errors, corruption_spectra
from .sae_quality import feature_density, frontier
from .saes import cosine_distances, cosine_distributions, training_curves

__all__ = [
    "attribution_scatter",
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
    "head_links",
    "image_trajectories",
    "patching_map",
    "pattern_change",
    "table_one",
    "training_curves",
    "transfer",
]
