from .dose import mean_divergence
from .planting import Decoy, Planted, Truth, plant
from .readings import METHODS, read_places
from .scores import auroc, detection, divide_by_nulls, place_scores

__all__ = [
    "METHODS",
    "Decoy",
    "Planted",
    "Truth",
    "auroc",
    "detection",
    "divide_by_nulls",
    "mean_divergence",
    "place_scores",
    "plant",
    "read_places",
]
