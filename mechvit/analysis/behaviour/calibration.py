"""Expected calibration error (arXiv:1706.04599, equation 3) and its bins.

Bin m of the 15 is ((m - 1)/15, m/15], as in section 2. torchmetrics closes its bins below instead and gives a
confidence of exactly 1 a bin of its own; both agree where no confidence lies on an edge.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ECE_BINS = 15
"""Number of equal-width bins of confidence."""


def calibration_bin(confidence: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Return the bin of each confidence, 0 to 14; a bin includes its upper edge."""
    inner = torch.arange(1, ECE_BINS, dtype=torch.float64, device=confidence.device) / ECE_BINS
    return torch.bucketize(confidence.double(), inner)


def calibration_gaps(
    correct: Bool[Tensor, "*batch"], confidence: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 15"]:
    """Return correct (1 or 0) minus confidence in the column of its bin, and 0 in the other columns.

    The calibration error is the sum over bins of the absolute mean over images.
    """
    gap = correct.double() - confidence.double()
    bins = calibration_bin(confidence)
    return gap.new_zeros(*gap.shape, ECE_BINS).scatter_(-1, bins[..., None], gap[..., None])
