"""Common corruptions of image batches: on [0, 1] RGB at the model's input size, before normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .random import standard_normal
from .spec import Corruption

NOISE_STD: dict[int, float] = {1: 0.08, 2: 0.12, 3: 0.18, 4: 0.26, 5: 0.38}
"""ImageNet-C's standard deviation of Gaussian noise at each severity, for pixels in [0, 1] (arXiv:1903.12261)."""


def gaussian_blur(
    images: Float[Tensor, "batch channel height width"],
    level: int,
    image_ids: Int[Tensor, " batch"],
    seed: int,
) -> Float[Tensor, "batch channel height width"]:
    """Convolve with a Gaussian of `level` pixels' standard deviation, cut at 4 of them, borders mirrored (kornia)."""
    radius = math.ceil(4 * level)
    height, width = images.shape[-2:]
    if radius >= min(height, width):
        raise ValueError(
            f"gaussian_blur at level {level} mirrors {radius} pixels at the border and needs larger images; "
            f"got {height}x{width}: use a lower level or a larger input size"
        )
    rows, columns = (_blur_operator(size, level).to(images) for size in (height, width))
    return (rows.T @ images @ columns).clamp_(0, 1)  # the weights sum to one up to rounding only


@lru_cache(maxsize=16)
def _blur_operator(size: int, level: int) -> Float[Tensor, "size size"]:
    """kornia's blur of one line of `size` pixels as a matrix: row i is the blurred i-th unit line.

    Blur is linear and separable, so that two small products do what a convolution with a wide kernel does, in a
    fraction of its time on a CPU.
    """
    from kornia.filters import gaussian_blur2d

    lines = torch.eye(size, dtype=torch.float64)[None, None]
    return gaussian_blur2d(lines, (1, 2 * math.ceil(4 * level) + 1), (1.0, float(level)), border_type="reflect")[0, 0]


def gaussian_noise(
    images: Float[Tensor, "batch channel height width"],
    level: int,
    image_ids: Int[Tensor, " batch"],
    seed: int,
) -> Float[Tensor, "batch channel height width"]:
    """Add ImageNet-C's Gaussian noise of severity `level` and clip to [0, 1].

    The draw depends on the seed and the image's id alone, and is the same at every severity up to its scale.
    """
    noise = standard_normal(image_ids, images[0].numel(), seed).view_as(images)
    return (images + NOISE_STD[level] * noise.to(images.dtype)).clamp_(0, 1)


CORRUPTIONS: dict[str, Callable[[Tensor, int, Tensor, int], Tensor]] = {
    "gaussian_blur": gaussian_blur,
    "gaussian_noise": gaussian_noise,
}
"""Each family's function (images, level, image_ids, seed) -> images."""


@torch.no_grad()
def corrupt(
    images: Float[Tensor, "batch channel height width"],
    corruption: Corruption | str,
    image_ids: Int[Tensor, " batch"],
    *,
    seed: int = 0,
) -> Float[Tensor, "batch channel height width"]:
    """Corrupt a batch of images on its own device.

    Args:
        images: RGB in [0, 1] at the model's input size, not normalised.
        corruption: what to apply; a string is read with `Corruption.parse`. `CLEAN` returns the images themselves.
        image_ids: each image's id. With `seed` it fixes the image's noise, so that batch size, order, workers and
            ranks never change a pixel.
        seed: non-negative; another seed is another draw of the noise.

    Raises:
        ValueError: images outside [0, 1] or not floating, ids that do not match the batch, an unknown corruption.

    Source: Hendrycks and Dietterich, arXiv:1903.12261 (noise severities); the paper's section 3.1 (blur levels).
    """
    if isinstance(corruption, str):
        corruption = Corruption.parse(corruption)
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images must be a floating [batch, channel, height, width]; got {images.dtype} {tuple(images.shape)}"
        )
    if image_ids.shape != images.shape[:1]:
        raise ValueError(
            f"image_ids must give one id for each of the {images.shape[0]} images; got {tuple(image_ids.shape)}"
        )
    if images.numel() and not (float(images.amin()) >= 0 and float(images.amax()) <= 1):
        raise ValueError(
            "corruptions act on RGB in [0, 1], before normalisation; got values from "
            f"{float(images.amin()):.3g} to {float(images.amax()):.3g}"
        )
    if corruption.family == "clean":
        return images
    return CORRUPTIONS[corruption.family](images, corruption.level, image_ids, seed)
