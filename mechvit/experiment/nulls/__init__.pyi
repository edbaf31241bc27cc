from .config import KINDS, NullsConfig
from .make import make_nulls
from .recipe import Recipe, recipe_of

__all__ = ["KINDS", "NullsConfig", "Recipe", "make_nulls", "recipe_of"]
