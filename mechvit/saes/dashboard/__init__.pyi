from .collect import browse_features
from .results import Browsing

__all__ = [
    "Browsing",
    "browse_features",
]
