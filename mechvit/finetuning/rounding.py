"""Rounding of weights trained in float32 to the dtype of the saved checkpoint."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def round_weights(model: PreTrainedModel, dtype: torch.dtype) -> torch.dtype:
    """Round the weights in place to `dtype` and return it; if one would overflow, warn and return float32."""
    weights = [weight for weight in model.state_dict().values() if weight.is_floating_point()]
    if any(weight.isfinite().all() and not weight.to(dtype).isfinite().all() for weight in weights):
        warnings.warn(f"a weight is too large for {dtype}: the checkpoint is saved in float32", stacklevel=3)
        return torch.float32
    for weight in weights:
        weight.copy_(weight.to(dtype))
    return dtype
