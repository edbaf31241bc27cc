"""Models of which every weight is moved, for the tests of analyses that compare two models' weights."""

from __future__ import annotations

import torch

from mechvit import HookedViT


def shifted(model: HookedViT, scale: float = 0.1) -> HookedViT:
    """The model itself, with every weight moved."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model
