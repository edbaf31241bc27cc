from .attention_change import AttentionChange, attention_change, js_distance
from .entropy_and_shift import AttentionEntropy, AttentionShift, attention_entropy, attention_shift
from .maps import AttentionMaps, HeadNumbers, attention_maps, head_numbers
from .rollout import attention_rollout

__all__ = [
    "AttentionChange",
    "AttentionEntropy",
    "AttentionMaps",
    "AttentionShift",
    "HeadNumbers",
    "attention_change",
    "attention_entropy",
    "attention_maps",
    "attention_rollout",
    "attention_shift",
    "head_numbers",
    "js_distance",
]
