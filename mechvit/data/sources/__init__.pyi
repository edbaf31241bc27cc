from .labels import InferredLabels, align_labels, check_aligned, config_classes
from .load import load_images, load_pictures
from .picture import open_picture, open_pictures
from .picture_column import PictureColumn

__all__ = [
    "InferredLabels",
    "PictureColumn",
    "align_labels",
    "check_aligned",
    "config_classes",
    "load_images",
    "load_pictures",
    "open_picture",
    "open_pictures",
]
