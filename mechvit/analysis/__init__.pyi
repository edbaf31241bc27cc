from .attention import AttentionEntropy, AttentionShift, attention_entropy, attention_shift
from .attention_maps import AttentionMaps, HeadNumbers, attention_maps, head_numbers
from .attribution import Attribution, attribution_patching
from .attribution_error import AttributionError, attribution_error
from .bootstrap import Interval, interval, resampled_means
from .cka import CKA, View, clean_and_corrupted, compare_views, linear_cka
from .components import Component
from .correlation import permutation_p, rank_correlation
from .directions import Direction, steering_direction, steering_directions
from .draws import attention_draws, first_correct_draws, lens_draws, performance_draws
from .finite import first_not_finite
from .fourier import FourierSensitivity, fourier_sensitivity
from .head_links import HeadLinks, head_links
from .histograms import cosine_histogram, first_correct_histogram
from .hsic import cka_of
from .interpolation import Interpolation, interpolate_weights
from .interventions import effects
from .lens import LogitLens, logit_lens
from .lens_comparison import LensReading, compare_lenses, lens_comparison_summary, tuned_lens
from .neurons import Neuron, NeuronPatching, choose_neurons, patch_neurons
from .outcomes import Outcomes, foils, logit_difference, recovery, score_outcomes
from .parts import model_parts, part_groups, weights_replaced
from .patch_lens import ClassTrajectories, PatchLens, class_trajectories, patch_lens
from .patching import Patching, patch_models
from .performance import Performance, evaluate
from .prediction_depth import PredictionDepth, depth_summary, prediction_depth
from .robustness import ALEXNET_ERROR, corrupted_performance, mean_corruption_error
from .rollout import attention_rollout
from .similarity import relabelling_p_value, spectral_distances
from .smallest_sets import NoGap, SmallestSet, SmallestSetConfig, smallest_set
from .spectrum import CorruptionSpectrum, corruption_spectrum, family_bands, spectrum_summary
from .steering import Steering, steer
from .study import StudyTables, study
from .summaries import attention_summary, first_correct, first_correct_summary, lens_summary, performance_summary
from .swapping import Swaps, swap_weights
from .transfer import Transfer, transfer
from .translators import TunedLens
from .tuned_lens_training import LensTraining, train_tuned_lens
from .verdicts import all_above, all_within
from .weight_changes import WeightChange, WeightChanges, weight_change

__all__ = [
    "ALEXNET_ERROR",
    "CKA",
    "AttentionEntropy",
    "AttentionMaps",
    "AttentionShift",
    "Attribution",
    "AttributionError",
    "ClassTrajectories",
    "Component",
    "CorruptionSpectrum",
    "Direction",
    "FourierSensitivity",
    "HeadLinks",
    "HeadNumbers",
    "Interpolation",
    "Interval",
    "LensReading",
    "LensTraining",
    "LogitLens",
    "Neuron",
    "NeuronPatching",
    "NoGap",
    "Outcomes",
    "PatchLens",
    "Patching",
    "Performance",
    "PredictionDepth",
    "SmallestSet",
    "SmallestSetConfig",
    "Steering",
    "StudyTables",
    "Swaps",
    "Transfer",
    "TunedLens",
    "View",
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
    "attribution_error",
    "attribution_patching",
    "choose_neurons",
    "cka_of",
    "class_trajectories",
    "clean_and_corrupted",
    "compare_lenses",
    "compare_views",
    "corrupted_performance",
    "corruption_spectrum",
    "cosine_histogram",
    "depth_summary",
    "effects",
    "evaluate",
    "family_bands",
    "first_correct",
    "first_correct_draws",
    "first_correct_histogram",
    "first_correct_summary",
    "first_not_finite",
    "foils",
    "fourier_sensitivity",
    "head_links",
    "head_numbers",
    "interpolate_weights",
    "interval",
    "lens_comparison_summary",
    "lens_draws",
    "lens_summary",
    "linear_cka",
    "logit_difference",
    "logit_lens",
    "mean_corruption_error",
    "model_parts",
    "part_groups",
    "patch_lens",
    "patch_models",
    "patch_neurons",
    "performance_draws",
    "performance_summary",
    "permutation_p",
    "prediction_depth",
    "rank_correlation",
    "recovery",
    "relabelling_p_value",
    "resampled_means",
    "score_outcomes",
    "smallest_set",
    "spectral_distances",
    "spectrum_summary",
    "steer",
    "steering_direction",
    "steering_directions",
    "study",
    "swap_weights",
    "train_tuned_lens",
    "transfer",
    "tuned_lens",
    "weight_change",
    "weights_replaced",
]
