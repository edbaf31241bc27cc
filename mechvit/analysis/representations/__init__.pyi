from .cka import CKA, View, clean_and_corrupted, compare_views, linear_cka
from .hsic import cka_of

__all__ = [
    "CKA",
    "View",
    "cka_of",
    "clean_and_corrupted",
    "compare_views",
    "linear_cka",
]
