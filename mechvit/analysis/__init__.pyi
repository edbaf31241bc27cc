from .attention import AttentionEntropy, AttentionShift, attention_entropy, attention_shift
from .attention_maps import AttentionMaps, HeadNumbers, attention_maps, head_numbers
from .bootstrap import Interval, interval, resampled_means
from .draws import attention_draws, first_correct_draws, lens_draws, performance_draws
from .fourier import FourierSensitivity, fourier_sensitivity
from .histograms import cosine_histogram, first_correct_histogram
from .lens import LogitLens, logit_lens
from .outcomes import Outcomes, foils, logit_difference, recovery, score_outcomes
from .patch_lens import ClassTrajectories, PatchLens, class_trajectories, patch_lens
from .performance import Performance, evaluate
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
from .verdicts import all_above, all_within

__all__ = [
    "ALEXNET_ERROR",
    "AttentionEntropy",
    "AttentionMaps",
    "AttentionShift",
    "ClassTrajectories",
    "CorruptionSpectrum",
    "FourierSensitivity",
    "HeadNumbers",
    "Interval",
    "LogitLens",
    "Outcomes",
    "PatchLens",
    "Performance",
    "StudyTables",
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
    "cosine_histogram",
    "evaluate",
    "first_correct",
    "first_correct_draws",
    "first_correct_histogram",
    "first_correct_summary",
    "foils",
    "fourier_sensitivity",
    "head_numbers",
    "interval",
    "lens_draws",
    "lens_summary",
    "logit_difference",
    "logit_lens",
    "mean_corruption_error",
    "patch_lens",
    "performance_draws",
    "performance_summary",
    "recovery",
    "resampled_means",
    "score_outcomes",
    "spectrum_summary",
    "study",
]
