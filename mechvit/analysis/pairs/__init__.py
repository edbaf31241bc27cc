"""Kinship of two models: whether one was trained from the other, judged by their weights (names in `__init__.pyi`)."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
