from .ablation import FeatureAblation, ablate_features, ablation_summary
from .ablation_sets import FeatureSets, sensitive_features
from .corruption_change import FeatureChange, LatentChange, feature_change
from .matching import FeatureMatch, match_features
from .results import LogitEffects, SAEFeatures, Sensitivity
from .steering import sae_steering_direction
from .top_latents import TopLatents, top_latents

__all__ = [
    "FeatureAblation",
    "FeatureChange",
    "FeatureMatch",
    "FeatureSets",
    "LatentChange",
    "LogitEffects",
    "SAEFeatures",
    "Sensitivity",
    "TopLatents",
    "ablate_features",
    "ablation_summary",
    "feature_change",
    "match_features",
    "sae_steering_direction",
    "sensitive_features",
    "top_latents",
]
