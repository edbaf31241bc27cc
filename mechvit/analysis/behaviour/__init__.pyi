from .performance import Performance, evaluate

__all__ = [
    "Performance",
    "evaluate",
]
