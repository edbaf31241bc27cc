from .comparison import LensReading, compare_lenses, lens_comparison_summary, tuned_lens
from .difference_lens import DifferenceLens, difference_lens
from .logit_lens import LogitLens, logit_lens
from .patch_lens import ClassTrajectories, PatchLens, class_trajectories, patch_lens
from .prediction_depth import PredictionDepth, depth_summary, prediction_depth
from .tuned_lens import TunedLens
from .tuned_lens_training import LensTraining, train_tuned_lens

__all__ = [
    "ClassTrajectories",
    "DifferenceLens",
    "LensReading",
    "LensTraining",
    "LogitLens",
    "PatchLens",
    "PredictionDepth",
    "TunedLens",
    "class_trajectories",
    "compare_lenses",
    "depth_summary",
    "difference_lens",
    "lens_comparison_summary",
    "logit_lens",
    "patch_lens",
    "prediction_depth",
    "train_tuned_lens",
    "tuned_lens",
]
