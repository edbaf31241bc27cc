from .attention import AttentionEntropy, AttentionShift, attention_entropy, attention_shift
from .attention_maps import AttentionMaps, HeadNumbers, attention_maps, head_numbers
from .bootstrap import Interval, interval, resampled_means
from .cka import CKA, View, clean_and_corrupted, compare_views, linear_cka
from .draws import attention_draws, first_correct_draws, lens_draws, performance_draws
from .fourier import FourierSensitivity, fourier_sensitivity
from .hsic import cka_of
from .lens import LogitLens, logit_lens
from .lens_comparison import LensReading, compare_lenses, lens_comparison_summary
from .outcomes import Outcomes, foils, logit_difference, recovery, score_outcomes
from .patch_lens import ClassTrajectories, PatchLens, class_trajectories, patch_lens
from .performance import Performance, evaluate
from .prediction_depth import PredictionDepth, depth_summary, prediction_depth
from .robustness import ALEXNET_ERROR, corrupted_performance, mean_corruption_error
from .rollout import attention_rollout
from .spectrum import CorruptionSpectrum, corruption_spectrum, spectrum_summary
from .study import StudyTables, study
from .summaries import (
    attention_summary,
    first_correct,
    first_correct_summary,
    lens_summary,
    performance_summary,
)
from .translators import TunedLens
from .tuned_lens import tuned_lens
from .tuned_lens_training import LensTraining, train_tuned_lens
from .verdicts import all_above, all_within

__all__ = [
    "ALEXNET_ERROR",
    "CKA",
    "AttentionEntropy",
    "AttentionMaps",
    "AttentionShift",
    "ClassTrajectories",
    "CorruptionSpectrum",
    "FourierSensitivity",
    "HeadNumbers",
    "Interval",
    "LensReading",
    "LensTraining",
    "LogitLens",
    "Outcomes",
    "PatchLens",
    "Performance",
    "PredictionDepth",
    "StudyTables",
    "TunedLens",
    "View",
    "all_above",
    "all_within",
    "attention_draws",
    "attention_entropy",
    "attention_maps",
    "attention_rollout",
    "attention_shift",
    "attention_summary",
    "cka_of",
    "class_trajectories",
    "clean_and_corrupted",
    "compare_lenses",
    "compare_views",
    "corrupted_performance",
    "corruption_spectrum",
    "depth_summary",
    "evaluate",
    "first_correct",
    "first_correct_draws",
    "first_correct_summary",
    "foils",
    "fourier_sensitivity",
    "head_numbers",
    "interval",
    "lens_comparison_summary",
    "lens_draws",
    "lens_summary",
    "linear_cka",
    "logit_difference",
    "logit_lens",
    "mean_corruption_error",
    "patch_lens",
    "performance_draws",
    "performance_summary",
    "prediction_depth",
    "recovery",
    "resampled_means",
    "score_outcomes",
    "spectrum_summary",
    "study",
    "train_tuned_lens",
    "tuned_lens",
]
