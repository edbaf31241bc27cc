from .attention import AttentionEntropy, AttentionShift, attention_entropy, attention_shift
from .bootstrap import Interval, interval, resampled_means
from .draws import attention_draws, first_correct_draws, lens_draws, performance_draws
from .lens import LogitLens, logit_lens
from .performance import Performance, evaluate
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
    "AttentionEntropy",
    "AttentionShift",
    "Interval",
    "LogitLens",
    "Performance",
    "StudyTables",
    "all_above",
    "all_within",
    "attention_draws",
    "attention_entropy",
    "attention_shift",
    "attention_summary",
    "evaluate",
    "first_correct",
    "first_correct_draws",
    "first_correct_summary",
    "interval",
    "lens_draws",
    "lens_summary",
    "logit_lens",
    "performance_draws",
    "performance_summary",
    "resampled_means",
    "study",
]
