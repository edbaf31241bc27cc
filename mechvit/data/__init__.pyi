from .batches import ImageBatch, iter_batches
from .corruptions import CORRUPTIONS, corrupt
from .pixels import normalize, prepare, unit_pixels
from .sources import align_labels, load_images
from .spec import CLEAN, FAMILIES, GROUPS, IMAGENET_C, IMAGENET_C_EXTRA, PAPER_CORRUPTIONS, Corruption, severities

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
    "align_labels",
    "corrupt",
    "iter_batches",
    "load_images",
    "normalize",
    "prepare",
    "severities",
    "unit_pixels",
]
