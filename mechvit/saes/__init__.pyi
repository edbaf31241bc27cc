from .config import ARCHITECTURES, SAEConfig, StreamConfig, Sweep, TrainConfig
from .distance import distance_table, distribution_distance
from .evaluation import evaluate_sae, evaluate_saes, load_sae, sae_cosine
from .publishing import push_to_hub
from .results import SAECosine, SAEEvaluation, SAEQuality
from .store import ImageActivationsStore
from .streams import ActivationStreams, ImageStreams
from .training import read_history, train_on, train_saes

__all__ = [
    "ARCHITECTURES",
    "ActivationStreams",
    "ImageActivationsStore",
    "ImageStreams",
    "SAEConfig",
    "SAECosine",
    "SAEEvaluation",
    "SAEQuality",
    "StreamConfig",
    "Sweep",
    "TrainConfig",
    "distance_table",
    "distribution_distance",
    "evaluate_sae",
    "evaluate_saes",
    "load_sae",
    "push_to_hub",
    "read_history",
    "sae_cosine",
    "train_on",
    "train_saes",
]
