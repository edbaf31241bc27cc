from .feature_browser import FeatureBrowser
from .patch_lens import LensPicture, PatchLensView

__all__ = [
    "FeatureBrowser",
    "LensPicture",
    "PatchLensView",
]
