from .activation_cache import (
    CacheConfig,
    CachedActivations,
    CachedStreams,
    ShuffleOptions,
    cache_activations,
    export_for_sae_lens,
)
from .activations.image_store import ImageActivationsStore
from .activations.multi_model_streams import MixedStreams
from .activations.streams import ActivationStreams, ImageStreams
from .config import ARCHITECTURES, SAEConfig, StreamConfig, Sweep, TrainConfig
from .dashboard.collect import browse_features
from .dashboard.results import Browsing
from .evaluation.cosine_distance import distance_table, distribution_distance
from .evaluation.evaluate import evaluate_sae, evaluate_saes, load_sae, sae_cosine, sae_features
from .evaluation.results import Classification, FiringRates, SAECosine, SAEEvaluation, SAEQuality
from .evaluation.sae_table import sae_settings
from .latents.ablation import FeatureAblation, ablate_features, ablation_summary
from .latents.ablation_sets import FeatureSets, sensitive_features
from .latents.corruption_change import FeatureChange, LatentChange, feature_change
from .latents.matching import FeatureMatch, match_features
from .latents.results import LogitEffects, SAEFeatures, Sensitivity
from .latents.steering import sae_steering_direction
from .latents.top_latents import TopLatents, top_latents
from .training.publishing import push_to_hub
from .training.train import read_history, train_on, train_saes

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
    "TopLatents",
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
    "top_latents",
    "train_on",
    "train_saes",
]
