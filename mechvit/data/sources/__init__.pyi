from .labels import InferredLabels, align_labels, check_aligned, config_classes
from .load import load_images
from .picture import open_picture, open_pictures
from .picture_column import PictureColumn

__all__ = [
    "InferredLabels",
    "PictureColumn",
    "align_labels",
    "check_aligned",
    "config_classes",
    "load_images",
    "open_picture",
    "open_pictures",
]
