from .browsed import Browsing
from .browsing import browse_features
from .cached import (
    CacheConfig,
    CachedActivations,
    CachedStreams,
    ShuffleOptions,
    cache_activations,
    export_for_sae_lens,
)
from .config import ARCHITECTURES, SAEConfig, StreamConfig, Sweep, TrainConfig
from .distance import distance_table, distribution_distance
from .evaluation import evaluate_sae, evaluate_saes, load_sae, sae_cosine, sae_features
from .feature_ablation import FeatureAblation, ablate_features, ablation_summary
from .feature_change import FeatureChange, LatentChange, feature_change
from .feature_results import LogitEffects, SAEFeatures, Sensitivity
from .feature_sets import FeatureSets, sensitive_features
from .matching import FeatureMatch, match_features
from .mixed_streams import MixedStreams
from .publishing import push_to_hub
from .results import Classification, FiringRates, SAECosine, SAEEvaluation, SAEQuality
from .settings import sae_settings
from .steering import sae_steering_direction
from .store import ImageActivationsStore
from .streams import ActivationStreams, ImageStreams
from .training import read_history, train_on, train_saes

__all__ = [
    "ARCHITECTURES",
    "ActivationStreams",
    "Browsing",
    "CacheConfig",
    "CachedActivations",
    "CachedStreams",
    "Classification",
    "FeatureAblation",
    "FeatureChange",
    "FeatureMatch",
    "FeatureSets",
    "FiringRates",
    "ImageActivationsStore",
    "ImageStreams",
    "LatentChange",
    "LogitEffects",
    "MixedStreams",
    "SAEConfig",
    "SAECosine",
    "SAEEvaluation",
    "SAEFeatures",
    "SAEQuality",
    "Sensitivity",
    "ShuffleOptions",
    "StreamConfig",
    "Sweep",
    "TrainConfig",
    "ablate_features",
    "ablation_summary",
    "browse_features",
    "cache_activations",
    "distance_table",
    "distribution_distance",
    "evaluate_sae",
    "evaluate_saes",
    "export_for_sae_lens",
    "feature_change",
    "load_sae",
    "match_features",
    "push_to_hub",
    "read_history",
    "sae_cosine",
    "sae_features",
    "sae_settings",
    "sae_steering_direction",
    "sensitive_features",
    "train_on",
    "train_saes",
]
