"""ImageMagick's motion blur: a streak with a half-Gaussian tail from every pixel."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def streak(
    images: Float[Tensor, "batch channel height width"], radius: int, sigma: float, angle: Float[Tensor, " batch"]
) -> Float[Tensor, "batch channel height width"]:
    """Average the 2 radius + 1 pixels that follow each pixel in the direction of `angle`, with Gaussian weights.

        out(p) = sum_i w_i x(p + d_i),  w_i ~ exp(-i^2 / (2 sigma^2)),  i = 0 .. 2 radius

    d_i is the pixel nearest to i (cos angle, sin angle), x to the right and y down; the last pixel is repeated beyond
    the border. Each image's taps are slices of its padded pixels.

    Args:
        radius: pixels.
        sigma: pixels.
        angle: direction for each image, degrees.

    Source: ImageMagick, MotionBlurImage (its kernel and its offsets).
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    radians = np.deg2rad(angle.double().cpu().numpy())[:, None]
    across, down = (np.ceil(steps * part(radians) - 0.5).astype(int) for part in (np.cos, np.sin))
    height, width = images.shape[-2:]
    reach = 2 * radius
    padded = torch.nn.functional.pad(images, [reach] * 4, mode="replicate")
    out = torch.zeros_like(images)
    for b in range(len(images)):
        for weight, dx, dy in zip(weights.tolist(), across[b], down[b], strict=True):
            top, left = reach + dy, reach + dx
            out[b] += weight * padded[b, :, top : top + height, left : left + width]
    return out
