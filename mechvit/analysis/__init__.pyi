from .attention.attention_change import AttentionChange, attention_change, js_distance
from .attention.entropy_and_shift import AttentionEntropy, AttentionShift, attention_entropy, attention_shift
from .attention.maps import AttentionMaps, HeadNumbers, attention_maps, head_numbers
from .attention.rollout import attention_rollout
from .behaviour.answers import BehaviourChange, behaviour_of_logits
from .behaviour.behaviour_change import behaviour_change
from .behaviour.performance import Performance, evaluate
from .behaviour.predictions import Predictions, predict
from .finite import first_not_finite
from .heads.choice import HeadChoice, choose_head
from .heads.combinations import HeadCombinations, head_combinations
from .heads.probe import Probe, cross_fitted, fit_probe, fit_shared_probe, with_probe
from .heads.ridge import RidgeHead
from .interventions.activation_patching import Patching, patch_models
from .interventions.attribution_error import AttributionError, attribution_error
from .interventions.attribution_patching import Attribution, attribution_patching
from .interventions.components import Component
from .interventions.head_effects import HeadLinks, head_links
from .interventions.neuron_patching import Neuron, NeuronPatching, choose_neurons, patch_neurons
from .interventions.recovery import Outcomes, foils, logit_difference, recovery, score_outcomes
from .interventions.runner import effects
from .interventions.steering import Steering, steer
from .interventions.steering_directions import Direction, steering_direction, steering_directions
from .lenses.comparison import LensReading, compare_lenses, lens_comparison_summary, tuned_lens
from .lenses.difference_lens import DifferenceLens, difference_lens
from .lenses.logit_lens import LogitLens, logit_lens
from .lenses.patch_lens import ClassTrajectories, PatchLens, class_trajectories, patch_lens
from .lenses.prediction_depth import PredictionDepth, depth_summary, prediction_depth
from .lenses.tuned_lens import TunedLens
from .lenses.tuned_lens_training import LensTraining, train_tuned_lens
from .pairs.kinship import Kinship, kinship, require_kin
from .pairs.matching import MatchedMatrix
from .pairs.unrelated import unrelated_cosine
from .representations.cka import CKA, View, clean_and_corrupted, compare_views, layers_by_depth, linear_cka
from .representations.hsic import cka_of
from .representations.residual_cosine import ResidualCosine, residual_cosine
from .requirements import REQUIREMENTS, Requirement, unmet
from .robustness.corruption_error import ALEXNET_ERROR, corrupted_performance, mean_corruption_error
from .robustness.corruption_spectrum import CorruptionSpectrum, corruption_spectrum, family_bands, spectrum_summary
from .robustness.fourier_sensitivity import FourierSensitivity, fourier_sensitivity
from .robustness.spectral_distance import relabelling_p_value, spectral_distances
from .robustness.transfer import Transfer, transfer
from .statistics.bootstrap import Interval, interval, resampled_means
from .statistics.correlation import permutation_p, rank_correlation
from .statistics.verdicts import all_above, all_within
from .study import StudyTables, study
from .summaries.bootstrap_draws import attention_draws, first_correct_draws, lens_draws, performance_draws
from .summaries.groups import performance_by_group
from .summaries.histograms import cosine_histogram, first_correct_histogram
from .summaries.tables import attention_summary, first_correct, first_correct_summary, lens_summary, performance_summary
from .weights.change import WeightChange, WeightChanges, weight_change
from .weights.interpolation import Interpolation, interpolate_weights
from .weights.model_parts import model_parts, part_groups, weights_replaced
from .weights.shortest_run import ShortestRun, shortest_run
from .weights.smallest_set import NoGap, SmallestSet, SmallestSetConfig, smallest_set
from .weights.swapping import Swaps, swap_both_ways, swap_weights

__all__ = [
    "ALEXNET_ERROR",
    "CKA",
    "REQUIREMENTS",
    "AttentionChange",
    "AttentionEntropy",
    "AttentionMaps",
    "AttentionShift",
    "Attribution",
    "AttributionError",
    "BehaviourChange",
    "ClassTrajectories",
    "Component",
    "CorruptionSpectrum",
    "DifferenceLens",
    "Direction",
    "FourierSensitivity",
    "HeadChoice",
    "HeadCombinations",
    "HeadLinks",
    "HeadNumbers",
    "Interpolation",
    "Interval",
    "Kinship",
    "LensReading",
    "LensTraining",
    "LogitLens",
    "MatchedMatrix",
    "Neuron",
    "NeuronPatching",
    "NoGap",
    "Outcomes",
    "PatchLens",
    "Patching",
    "Performance",
    "PredictionDepth",
    "Predictions",
    "Probe",
    "Requirement",
    "ResidualCosine",
    "RidgeHead",
    "ShortestRun",
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
    "attention_change",
    "attention_draws",
    "attention_entropy",
    "attention_maps",
    "attention_rollout",
    "attention_shift",
    "attention_summary",
    "attribution_error",
    "attribution_patching",
    "behaviour_change",
    "behaviour_of_logits",
    "choose_head",
    "choose_neurons",
    "cka_of",
    "class_trajectories",
    "clean_and_corrupted",
    "compare_lenses",
    "compare_views",
    "corrupted_performance",
    "corruption_spectrum",
    "cosine_histogram",
    "cross_fitted",
    "depth_summary",
    "difference_lens",
    "effects",
    "evaluate",
    "family_bands",
    "first_correct",
    "first_correct_draws",
    "first_correct_histogram",
    "first_correct_summary",
    "first_not_finite",
    "fit_probe",
    "fit_shared_probe",
    "foils",
    "fourier_sensitivity",
    "head_combinations",
    "head_links",
    "head_numbers",
    "interpolate_weights",
    "interval",
    "js_distance",
    "kinship",
    "layers_by_depth",
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
    "performance_by_group",
    "performance_draws",
    "performance_summary",
    "permutation_p",
    "predict",
    "prediction_depth",
    "rank_correlation",
    "recovery",
    "relabelling_p_value",
    "require_kin",
    "resampled_means",
    "residual_cosine",
    "score_outcomes",
    "shortest_run",
    "smallest_set",
    "spectral_distances",
    "spectrum_summary",
    "steer",
    "steering_direction",
    "steering_directions",
    "study",
    "swap_both_ways",
    "swap_weights",
    "train_tuned_lens",
    "transfer",
    "tuned_lens",
    "unmet",
    "unrelated_cosine",
    "weight_change",
    "weights_replaced",
    "with_probe",
]
