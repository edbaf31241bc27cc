from .answers import BehaviourChange, behaviour_of_logits
from .behaviour_change import behaviour_change
from .performance import Performance, evaluate
from .predictions import Predictions, predict

__all__ = [
    "BehaviourChange",
    "Performance",
    "Predictions",
    "behaviour_change",
    "behaviour_of_logits",
    "evaluate",
    "predict",
]
