from .batches import ImageBatch, iter_batches
from .conditions import as_condition, fingerprint, parse_condition
from .corruption_spec import (
    CLEAN,
    CORRUPTION_FAMILIES,
    GROUPS,
    IMAGENET_C,
    IMAGENET_C_EXTRA,
    PAPER_CORRUPTIONS,
    Condition,
    Corruption,
    severities,
)
from .corruptions import CORRUPTIONS, corrupt
from .functions import register_corruption
from .mixture_spec import Mixture, parse_training
from .mixtures import corrupt_by_mixture, drawn_members
from .pixels import normalize, prepare, unit_pixels
from .sources.folders.groups import group_columns
from .sources.labels import InferredLabels, align_labels, check_aligned, config_classes
from .sources.load import load_images, load_pictures
from .sources.picture import open_picture, open_pictures
from .sources.picture_column import PictureColumn
from .training_images import without_training_images

__all__ = [
    "CLEAN",
    "CORRUPTIONS",
    "CORRUPTION_FAMILIES",
    "GROUPS",
    "IMAGENET_C",
    "IMAGENET_C_EXTRA",
    "PAPER_CORRUPTIONS",
    "Condition",
    "Corruption",
    "ImageBatch",
    "InferredLabels",
    "Mixture",
    "PictureColumn",
    "align_labels",
    "as_condition",
    "check_aligned",
    "config_classes",
    "corrupt",
    "corrupt_by_mixture",
    "drawn_members",
    "fingerprint",
    "group_columns",
    "iter_batches",
    "load_images",
    "load_pictures",
    "normalize",
    "open_picture",
    "open_pictures",
    "parse_condition",
    "parse_training",
    "prepare",
    "register_corruption",
    "severities",
    "unit_pixels",
    "without_training_images",
]
