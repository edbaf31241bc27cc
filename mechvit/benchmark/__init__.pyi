from .choice import choose_readings, frozen_readings
from .config import PLANS, BenchmarkConfig, BenchmarkPlan
from .dose import mean_divergence
from .planting import Decoy, Planted, Truth, plant
from .readings import METHODS, read_places
from .run import run_benchmark
from .scores import auroc, detection, divide_by_nulls, place_scores

__all__ = [
    "METHODS",
    "PLANS",
    "BenchmarkConfig",
    "BenchmarkPlan",
    "Decoy",
    "Planted",
    "Truth",
    "auroc",
    "choose_readings",
    "detection",
    "divide_by_nulls",
    "frozen_readings",
    "mean_divergence",
    "place_scores",
    "plant",
    "read_places",
    "run_benchmark",
]
