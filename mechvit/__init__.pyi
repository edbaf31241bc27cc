from .experiment.comparison import compare
from .models import HookedViT
from .views import look

__all__ = ["HookedViT", "compare", "look"]
__version__: str
