from .entropy_and_shift import AttentionEntropy, AttentionShift, attention_entropy, attention_shift
from .maps import AttentionMaps, HeadNumbers, attention_maps, head_numbers
from .rollout import attention_rollout

__all__ = [
    "AttentionEntropy",
    "AttentionMaps",
    "AttentionShift",
    "HeadNumbers",
    "attention_entropy",
    "attention_maps",
    "attention_rollout",
    "attention_shift",
    "head_numbers",
]
