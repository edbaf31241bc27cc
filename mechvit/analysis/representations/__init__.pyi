from .cka import CKA, View, clean_and_corrupted, compare_views, linear_cka
from .hsic import cka_of
from .residual_cosine import ResidualCosine, residual_cosine

__all__ = [
    "CKA",
    "ResidualCosine",
    "View",
    "cka_of",
    "clean_and_corrupted",
    "compare_views",
    "linear_cka",
    "residual_cosine",
]
