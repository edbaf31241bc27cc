from .kinship import Kinship, kinship, known_kinship, require_kin
from .matching import MatchedMatrix
from .unrelated import KIN_MARGIN, unrelated_cosine

__all__ = ["KIN_MARGIN", "Kinship", "MatchedMatrix", "kinship", "known_kinship", "require_kin", "unrelated_cosine"]
