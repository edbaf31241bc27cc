from .bootstrap_draws import attention_draws, first_correct_draws, lens_draws, performance_draws
from .groups import image_design, performance_by_group, with_image_groups, with_image_units
from .histograms import cosine_histogram, first_correct_histogram
from .tables import attention_summary, first_correct, first_correct_summary, lens_summary, performance_summary

__all__ = [
    "attention_draws",
    "attention_summary",
    "cosine_histogram",
    "first_correct",
    "first_correct_draws",
    "first_correct_histogram",
    "first_correct_summary",
    "image_design",
    "lens_draws",
    "lens_summary",
    "performance_by_group",
    "performance_draws",
    "performance_summary",
    "with_image_groups",
    "with_image_units",
]
