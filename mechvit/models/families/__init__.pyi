from .family import Family
from .supported import FAMILIES, find_family

__all__ = ["FAMILIES", "Family", "find_family"]
