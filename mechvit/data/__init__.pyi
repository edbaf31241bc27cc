from .batches import ImageBatch, iter_batches
from .corruptions import CORRUPTIONS, corrupt
from .labels import InferredLabels, align_labels, check_aligned, config_classes
from .mixtures import corrupt_by_mixture, drawn_members
from .picture import open_picture, open_pictures
from .picture_column import PictureColumn
from .pixels import normalize, prepare, unit_pixels
from .sources import load_images
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
    "InferredLabels",
    "Mixture",
    "PictureColumn",
    "align_labels",
    "check_aligned",
    "config_classes",
    "corrupt",
    "corrupt_by_mixture",
    "drawn_members",
    "iter_batches",
    "load_images",
    "normalize",
    "open_picture",
    "open_pictures",
    "parse_training",
    "prepare",
    "severities",
    "unit_pixels",
]
