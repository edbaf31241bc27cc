from .attention import AttentionEntropy, AttentionShift, attention_entropy, attention_shift
from .attention_maps import AttentionMaps, HeadNumbers, attention_maps, head_numbers
from .bootstrap import Interval, interval, resampled_means
from .directions import Direction, steering_direction, steering_directions
from .draws import attention_draws, first_correct_draws, lens_draws, performance_draws
from .fourier import FourierSensitivity, fourier_sensitivity
from .interpolation import Interpolation, interpolate_weights
from .interventions import effects
from .lens import LogitLens, logit_lens
from .outcomes import Outcomes, foils, logit_difference, recovery, score_outcomes
from .parts import model_parts, part_groups, weights_replaced
from .patch_lens import ClassTrajectories, PatchLens, class_trajectories, patch_lens
from .performance import Performance, evaluate
from .robustness import ALEXNET_ERROR, corrupted_performance, mean_corruption_error
from .rollout import attention_rollout
from .smallest_sets import NoGap, SmallestSet, smallest_set
from .spectrum import CorruptionSpectrum, corruption_spectrum, spectrum_summary
from .steering import Steering, steer
from .study import StudyTables, study
from .summaries import (
    attention_summary,
    first_correct,
    first_correct_summary,
    lens_summary,
    performance_summary,
)
from .swapping import Swaps, swap_weights
from .verdicts import all_above, all_within
from .weight_changes import WeightChange, WeightChanges, weight_change

__all__ = [
    "ALEXNET_ERROR",
    "AttentionEntropy",
    "AttentionMaps",
    "AttentionShift",
    "ClassTrajectories",
    "CorruptionSpectrum",
    "Direction",
    "FourierSensitivity",
    "HeadNumbers",
    "Interpolation",
    "Interval",
    "LogitLens",
    "NoGap",
    "Outcomes",
    "PatchLens",
    "Performance",
    "SmallestSet",
    "Steering",
    "StudyTables",
    "Swaps",
    "WeightChange",
    "WeightChanges",
    "all_above",
    "all_within",
    "attention_draws",
    "attention_entropy",
    "attention_maps",
    "attention_rollout",
    "attention_shift",
    "attention_summary",
    "class_trajectories",
    "corrupted_performance",
    "corruption_spectrum",
    "effects",
    "evaluate",
    "first_correct",
    "first_correct_draws",
    "first_correct_summary",
    "foils",
    "fourier_sensitivity",
    "head_numbers",
    "interpolate_weights",
    "interval",
    "lens_draws",
    "lens_summary",
    "logit_difference",
    "logit_lens",
    "mean_corruption_error",
    "model_parts",
    "part_groups",
    "patch_lens",
    "performance_draws",
    "performance_summary",
    "recovery",
    "resampled_means",
    "score_outcomes",
    "smallest_set",
    "spectrum_summary",
    "steer",
    "steering_direction",
    "steering_directions",
    "study",
    "swap_weights",
    "weight_change",
    "weights_replaced",
]
