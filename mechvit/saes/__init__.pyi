from .config import ARCHITECTURES, SAEConfig
from .distance import distance_table, distribution_distance
from .evaluation import evaluate_sae, evaluate_saes, load_sae, sae_cosine
from .results import SAECosine, SAEEvaluation, SAEQuality
from .store import ImageActivationsStore
from .training import read_history, train_saes

__all__ = [
    "ARCHITECTURES",
    "ImageActivationsStore",
    "SAEConfig",
    "SAECosine",
    "SAEEvaluation",
    "SAEQuality",
    "distance_table",
    "distribution_distance",
    "evaluate_sae",
    "evaluate_saes",
    "load_sae",
    "read_history",
    "sae_cosine",
    "train_saes",
]
