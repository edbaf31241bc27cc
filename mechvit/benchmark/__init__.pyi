from .dose import mean_divergence
from .planting import Decoy, Planted, Truth, plant

__all__ = ["Decoy", "Planted", "Truth", "mean_divergence", "plant"]
