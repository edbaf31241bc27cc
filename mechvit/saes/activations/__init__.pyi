from .image_store import ImageActivationsStore
from .multi_model_streams import MixedStreams
from .streams import ActivationStreams, ImageStreams

__all__ = [
    "ActivationStreams",
    "ImageActivationsStore",
    "ImageStreams",
    "MixedStreams",
]
