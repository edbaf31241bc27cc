"""Plasma clouds: a height map by the diamond-square algorithm, for ImageNet-C's fog."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.data.counter_rng import uniform

from .noise import Ids


def plasma(height: int, width: int, roughness: float, image_ids: Ids, seed: int) -> Float[Tensor, "batch height width"]:
    """Generate fractal clouds in [0, 1] on a torus, and return their upper left height x width.

    On a grid of 2^n points (the next power of two, 256 for 224 px), every square's centre becomes the mean of its
    corners plus a uniform draw in [-a, a], then every diamond's likewise; then the grid is halved, and a divided by
    roughness^2.

    Each point's draw depends on its place in the whole map, so the coarse shape is the same at every roughness.

    Source: Fournier, Fussell and Carpenter 1982, doi:10.1145/358523.358553; arXiv:1903.12261 for the constants.
    """
    side = 1 << max(1, (max(height, width) - 1).bit_length())
    wobble = 2 * uniform(image_ids, side * side, seed).view(-1, side, side) - 1
    field = torch.zeros_like(wobble)
    step, reach = side, 1.0
    while step > 1:
        half = step // 2
        corner, centre = field[:, ::step, ::step], field[:, half::step, half::step]
        right, below = field[:, ::step, half::step], field[:, half::step, ::step]
        across = corner + corner.roll(-1, 2)  # each corner and the next one in its row
        centre.copy_((across + across.roll(-1, 1)) / 4 + reach * wobble[:, half::step, half::step])
        right.copy_((centre + centre.roll(1, 1) + across) / 4 + reach * wobble[:, ::step, half::step])
        down = corner + corner.roll(-1, 1)
        below.copy_((centre + centre.roll(1, 2) + down) / 4 + reach * wobble[:, half::step, ::step])
        step, reach = half, reach / roughness**2
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return ((field - low) / (high - low))[:, :height, :width]
