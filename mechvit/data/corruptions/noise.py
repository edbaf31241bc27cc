"""Noise: independent random changes of every value or every pixel."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.data.counter_rng import named_seed, standard_normal, uniform

NOISE_STD: dict[int, float] = {1: 0.08, 2: 0.12, 3: 0.18, 4: 0.26, 5: 0.38}
"""ImageNet-C's standard deviation of Gaussian noise, for pixels in [0, 1] (arXiv:1903.12261)."""
SHOT_PHOTONS: dict[int, int] = {1: 60, 2: 25, 3: 12, 4: 5, 5: 3}
"""ImageNet-C's photons at full white."""
IMPULSE_SHARE: dict[int, float] = {1: 0.03, 2: 0.06, 3: 0.09, 4: 0.17, 5: 0.27}
"""ImageNet-C's share of values that become 0 or 1."""
SPECKLE_STD: dict[int, float] = {1: 0.15, 2: 0.2, 3: 0.35, 4: 0.45, 5: 0.6}
"""ImageNet-C's standard deviation of speckle noise, relative to the pixel's value."""

Images = Float[Tensor, "batch 3 height width"]
Ids = Int[Tensor, " batch"]


def gaussian_noise(
    images: Float[Tensor, "batch channel height width"], level: int, image_ids: Ids, seed: int
) -> Float[Tensor, "batch channel height width"]:
    """Add ImageNet-C's Gaussian noise of severity `level` and clip to [0, 1].

    The draw depends only on the seed and the image's id; severities differ only in its scale.
    """
    noise = standard_normal(image_ids, images[0].numel(), seed).view_as(images)
    return (images + NOISE_STD[level] * noise.to(images.dtype)).clamp_(0, 1)


def shot_noise(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Draw photon counts: Poisson(c x) / c, for c photons at full white."""
    return _count_photons(images, SHOT_PHOTONS[level], image_ids, named_seed(seed, "shot_noise"))


def poisson_noise(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Draw photon counts as `shot_noise` does, with 128 / 2^level photons at full white.

    Source: Poisson noise of photon counts, Hasinoff, Photon, Poisson noise (2014).
    """
    return _count_photons(images, 128 // 2**level, image_ids, named_seed(seed, "poisson_noise"))


def _count_photons(images: Images, photons: int, image_ids: Ids, seed: int) -> Images:
    """Draw Poisson(photons x images) / photons by inversion: the number of partial sums of the distribution below a
    uniform.

    One uniform per value and the recurrence p(k) = p(k - 1) rate / k, so that a rising rate never lowers a count. The
    uniforms are equal on every device; where one lies within the rounding of a partial sum, a count may differ by one
    (about 1 value in 100,000). Uniforms end at 1 - 2^-18, beyond the rounding of the sums: 4.5 deviations.
    """
    draw = uniform(image_ids, images[0].numel(), seed).view_as(images).clamp(max=1 - 2**-18)
    rate = images.to(torch.float32) * photons
    probability = torch.exp(-rate)
    total, counts = probability.clone(), torch.zeros_like(rate)
    for k in range(1, math.ceil(photons + 6 * math.sqrt(photons) + 8)):
        counts += draw >= total
        probability.mul_(rate).div_(k)
        total += probability
    return (counts / photons).clamp_(0, 1).to(images.dtype)


def impulse_noise(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Set a share of all values, channel by channel, to 0 or 1 (skimage's `s&p`)."""
    draw = uniform(image_ids, images[0].numel(), named_seed(seed, "impulse_noise")).view_as(images)
    return _salt_and_pepper(images, draw, IMPULSE_SHARE[level])


def salt_and_pepper(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Make `level` percent of the pixels black or white, in all channels together.

    Source: Gonzalez and Woods, Digital Image Processing (2018), section 5.2.
    """
    height, width = images.shape[-2:]
    draw = uniform(image_ids, height * width, named_seed(seed, "salt_and_pepper")).view(-1, 1, height, width)
    return _salt_and_pepper(images, draw, level / 100)


def _salt_and_pepper(images: Images, draw: Tensor, share: float) -> Images:
    """Set a share of pixels to 0 or 1 according to `draw`; larger shares include smaller ones."""
    rank = torch.where(draw < 0.5, draw, 1 - draw) * 2
    return torch.where(rank < share, (draw >= 0.5).to(images.dtype), images)


def speckle_noise(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Add Gaussian noise n in proportion to the pixel: x + x n."""
    noise = standard_normal(image_ids, images[0].numel(), named_seed(seed, "speckle_noise")).view_as(images)
    return (images + images * (SPECKLE_STD[level] * noise).to(images.dtype)).clamp_(0, 1)
