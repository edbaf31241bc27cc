from .cosine_distance import distance_table, distribution_distance
from .evaluate import evaluate_sae, evaluate_saes, load_sae, sae_cosine, sae_features
from .results import Classification, FiringRates, SAECosine, SAEEvaluation, SAEQuality
from .sae_table import sae_settings

__all__ = [
    "Classification",
    "FiringRates",
    "SAECosine",
    "SAEEvaluation",
    "SAEQuality",
    "distance_table",
    "distribution_distance",
    "evaluate_sae",
    "evaluate_saes",
    "load_sae",
    "sae_cosine",
    "sae_features",
    "sae_settings",
]
