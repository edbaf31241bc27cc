from .family import Architecture, Family, Stored
from .supported import FAMILIES, find_family

__all__ = ["FAMILIES", "Architecture", "Family", "Stored", "find_family"]
