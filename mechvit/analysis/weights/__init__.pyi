from .change import WeightChange, WeightChanges, weight_change
from .interpolation import Interpolation, interpolate_weights
from .model_parts import model_parts, part_groups, weights_replaced
from .smallest_set import NoGap, SmallestSet, SmallestSetConfig, smallest_set
from .swapping import Swaps, swap_weights

__all__ = [
    "Interpolation",
    "NoGap",
    "SmallestSet",
    "SmallestSetConfig",
    "Swaps",
    "WeightChange",
    "WeightChanges",
    "interpolate_weights",
    "model_parts",
    "part_groups",
    "smallest_set",
    "swap_weights",
    "weight_change",
    "weights_replaced",
]
