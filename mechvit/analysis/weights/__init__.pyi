from .change import WeightChange, WeightChanges, weight_change
from .interpolation import Interpolation, interpolate_weights
from .model_parts import model_parts, part_groups, weights_replaced
from .shortest_run import ShortestRun, shortest_run
from .smallest_set import NoGap, SmallestSet, SmallestSetConfig, smallest_set
from .swapping import Swaps, swap_both_ways, swap_weights

__all__ = [
    "Interpolation",
    "NoGap",
    "ShortestRun",
    "SmallestSet",
    "SmallestSetConfig",
    "Swaps",
    "WeightChange",
    "WeightChanges",
    "interpolate_weights",
    "model_parts",
    "part_groups",
    "shortest_run",
    "smallest_set",
    "swap_both_ways",
    "swap_weights",
    "weight_change",
    "weights_replaced",
]
