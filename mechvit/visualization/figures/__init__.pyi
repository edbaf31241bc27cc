from .attention import entropy_difference, pattern_change
from .claims import claims_forest
from .feature_ablation import feature_ablations, feature_changes
from .fourier import fourier_map
from .lens import class_probability, first_correct_difference, first_correct_layers, image_trajectories
from .patching import attribution_scatter, head_links, patching_map
from .performance import gains, table_one, transfer
from .representations import corruption_similarity, depth_change, lens_comparison, model_similarity, similarity_matrix
from .robustness import corruption_errors, corruption_spectra
from .sae_quality import feature_density, frontier
from .saes import cosine_distances, cosine_distributions, training_curves
from .steering import steering_by_scale, steering_cost
from .transfers import transfer_matrix, transfer_means, transfer_similarity
from .weights import interpolation_curves, swap_curves, swap_recovery, weight_changes

__all__ = [
    "attribution_scatter",
    "claims_forest",
    "class_probability",
    "corruption_errors",
    "corruption_similarity",
    "corruption_spectra",
    "cosine_distances",
    "cosine_distributions",
    "depth_change",
    "entropy_difference",
    "feature_ablations",
    "feature_changes",
    "feature_density",
    "first_correct_difference",
    "first_correct_layers",
    "fourier_map",
    "frontier",
    "gains",
    "head_links",
    "image_trajectories",
    "interpolation_curves",
    "lens_comparison",
    "model_similarity",
    "patching_map",
    "pattern_change",
    "similarity_matrix",
    "steering_by_scale",
    "steering_cost",
    "swap_curves",
    "swap_recovery",
    "table_one",
    "training_curves",
    "transfer",
    "transfer_matrix",
    "transfer_means",
    "transfer_similarity",
    "weight_changes",
]
