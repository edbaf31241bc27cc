from .family import Architecture, Family, Stored
from .supported import FAMILIES, find_family, input_size

__all__ = ["FAMILIES", "Architecture", "Family", "Stored", "find_family", "input_size"]
