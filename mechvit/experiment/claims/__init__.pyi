from .evidence import Claim, Rules
from .paper_claims import claims

__all__ = [
    "Claim",
    "Rules",
    "claims",
]
