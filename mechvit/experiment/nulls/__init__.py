"""Null models: what would be seen if nothing of the kind had been done (names in `__init__.pyi`)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
