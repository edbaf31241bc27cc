from .config import ARCHITECTURES, SAEConfig
from .distance import distance_table, distribution_distance
from .evaluation import SAEEvaluation, evaluate_sae, evaluate_saes, sae_cosine
from .store import ImageActivationsStore
from .training import read_history, train_saes

__all__ = [
    "ARCHITECTURES",
    "ImageActivationsStore",
    "SAEConfig",
    "SAEEvaluation",
    "distance_table",
    "distribution_distance",
    "evaluate_sae",
    "evaluate_saes",
    "read_history",
    "sae_cosine",
    "train_saes",
]
