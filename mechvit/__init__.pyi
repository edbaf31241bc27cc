from .experiment.comparison import compare
from .models import HookedViT

__all__ = ["HookedViT", "compare"]
__version__: str
