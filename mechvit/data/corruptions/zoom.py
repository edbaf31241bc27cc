"""Zooming into the middle of an image."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def zoom_in(
    images: Float[Tensor, "batch channel height width"], factor: float
) -> Float[Tensor, "batch channel height width"]:
    """Enlarge the middle 1 / factor of each side to the whole, with linear interpolation (scipy's `zoom`, order 1)."""
    sides = images.shape[-2:]
    inner = [math.ceil(side / factor) for side in sides]
    top, left = ((side - part) // 2 for side, part in zip(sides, inner, strict=True))
    middle = images[..., top : top + inner[0], left : left + inner[1]]
    size = [round(part * factor) for part in inner]
    large = torch.nn.functional.interpolate(middle, size=size, mode="bilinear", align_corners=True)
    top, left = ((part - side) // 2 for side, part in zip(sides, size, strict=True))
    return large[..., top : top + sides[0], left : left + sides[1]]
