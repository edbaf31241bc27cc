from .claims import claims
from .config import PRESETS, ExperimentConfig, ImageCounts
from .evidence import Claim, Rules
from .reproduce import reproduce

__all__ = ["PRESETS", "Claim", "ExperimentConfig", "ImageCounts", "Rules", "claims", "reproduce"]
