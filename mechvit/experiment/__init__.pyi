from .claims.evidence import Claim, Rules
from .claims.paper_claims import claims
from .config import PRESETS, ExperimentConfig, ImageCounts
from .reproduce import reproduce
from .transfer import run_transfer
from .transfer_config import TransferConfig, TransferCounts

__all__ = [
    "PRESETS",
    "Claim",
    "ExperimentConfig",
    "ImageCounts",
    "Rules",
    "TransferConfig",
    "TransferCounts",
    "claims",
    "reproduce",
    "run_transfer",
]
