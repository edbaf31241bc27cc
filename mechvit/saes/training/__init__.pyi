from .publishing import push_to_hub
from .train import read_history, train_on, train_saes

__all__ = [
    "push_to_hub",
    "read_history",
    "train_on",
    "train_saes",
]
