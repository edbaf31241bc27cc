from .export import export_for_sae_lens
from .manifest import CacheConfig, Plan
from .reader import CachedActivations
from .shuffled_epoch import ShuffledEpoch, ShuffleOptions
from .streams import CachedStreams
from .writer import cache_activations

__all__ = [
    "CacheConfig",
    "CachedActivations",
    "CachedStreams",
    "Plan",
    "ShuffleOptions",
    "ShuffledEpoch",
    "cache_activations",
    "export_for_sae_lens",
]
