from .models import HookedViT

__all__ = ["HookedViT"]
__version__: str
