from .export import export_for_sae_lens
from .plan import Plan
from .reader import CachedActivations
from .shuffle import ShuffledEpoch
from .streams import CachedStreams
from .writer import cache_activations

__all__ = [
    "CachedActivations",
    "CachedStreams",
    "Plan",
    "ShuffledEpoch",
    "cache_activations",
    "export_for_sae_lens",
]
