from .batches import ImageBatch, iter_batches
from .corruptions import CORRUPTIONS, corrupt
from .mixtures import corrupt_by_mixture, drawn_members
from .pixels import normalize, prepare, unit_pixels
from .sources import align_labels, load_images
from .spec import (
    CLEAN,
    FAMILIES,
    GROUPS,
    IMAGENET_C,
    IMAGENET_C_EXTRA,
    PAPER_CORRUPTIONS,
    Corruption,
    Mixture,
    parse_training,
    severities,
)

__all__ = [
    "CLEAN",
    "CORRUPTIONS",
    "FAMILIES",
    "GROUPS",
    "IMAGENET_C",
    "IMAGENET_C_EXTRA",
    "PAPER_CORRUPTIONS",
    "Corruption",
    "ImageBatch",
    "Mixture",
    "align_labels",
    "corrupt",
    "corrupt_by_mixture",
    "drawn_members",
    "iter_batches",
    "load_images",
    "normalize",
    "parse_training",
    "prepare",
    "severities",
    "unit_pixels",
]
