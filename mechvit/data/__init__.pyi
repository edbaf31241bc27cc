from .batches import ImageBatch, iter_batches
from .corruption_spec import (
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
from .corruptions import CORRUPTIONS, corrupt
from .mixtures import corrupt_by_mixture, drawn_members
from .pixels import normalize, prepare, unit_pixels
from .sources.labels import InferredLabels, align_labels, check_aligned, config_classes
from .sources.load import load_images
from .sources.picture import open_picture, open_pictures
from .sources.picture_column import PictureColumn

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
