from .answers import BehaviourChange, behaviour_of_logits
from .behaviour_change import behaviour_change
from .performance import Performance, evaluate

__all__ = [
    "BehaviourChange",
    "Performance",
    "behaviour_change",
    "behaviour_of_logits",
    "evaluate",
]
