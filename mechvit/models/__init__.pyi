from .config import HookedViTConfig
from .grafting import graft_head, linear_head
from .hooked_vit import HookedViT

__all__ = ["HookedViT", "HookedViTConfig", "graft_head", "linear_head"]
