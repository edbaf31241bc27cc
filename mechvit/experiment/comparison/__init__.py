"""Comparison of any base with any models tuned from it, on any images: one run, one report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
