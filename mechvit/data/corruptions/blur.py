"""Blur: the paper's, ImageNet-C's, and other filters."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.data.counter_rng import named_seed, uniform

from .motion import streak
from .noise import Ids, Images
from .separable import smooth
from .zoom import zoom_in

BLUR_SIGMA: dict[int, int] = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6}
"""ImageNet-C's standard deviation of its Gaussian blur, pixels (arXiv:1903.12261, its code for 224 px)."""
DEFOCUS: dict[int, tuple[int, float]] = {1: (3, 0.1), 2: (4, 0.5), 3: (6, 0.5), 4: (8, 0.5), 5: (10, 0.5)}
"""ImageNet-C's radius of the disc and standard deviation of the Gaussian that softens its edge, pixels."""
GLASS: dict[int, tuple[float, int, int]] = {
    1: (0.7, 1, 2),
    2: (0.9, 2, 1),
    3: (1, 2, 3),
    4: (1.1, 3, 2),
    5: (1.5, 4, 2),
}
"""ImageNet-C's standard deviation of the blur and reach of the displacement, pixels, and the number of displacements.
"""
MOTION: dict[int, tuple[int, int]] = {1: (10, 3), 2: (15, 5), 3: (15, 8), 4: (15, 12), 5: (20, 15)}
"""ImageNet-C's radius and standard deviation of the streak, pixels."""
ZOOM: dict[int, tuple[float, float]] = {
    1: (1.11, 0.01),
    2: (1.16, 0.01),
    3: (1.21, 0.02),
    4: (1.26, 0.02),
    5: (1.31, 0.03),
}
"""ImageNet-C's end and step of the zoom factors, which start at 1 (`numpy.arange`, whose last factor may be the end
itself because of rounding).
"""
BILATERAL_COLOUR = 0.2
"""Standard deviation of `bilateral_blur` over colours: summed absolute difference of the channels."""


def gaussian_blur(
    images: Float[Tensor, "batch channel height width"], level: int, image_ids: Ids, seed: int
) -> Float[Tensor, "batch channel height width"]:
    """Convolve with a Gaussian of standard deviation `level` pixels, cut at 4 standard deviations, with mirrored
    borders (kornia).

    Source: the paper's section 3.1.
    """
    radius = math.ceil(4 * level)
    height, width = images.shape[-2:]
    if radius >= min(height, width):
        raise ValueError(
            f"gaussian_blur at level {level} mirrors {radius} pixels at the border and needs larger images; "
            f"got {height}x{width}: use a lower level or a larger input size"
        )
    rows, columns = (_blur_operator(size, level).to(images) for size in (height, width))
    return (rows.T @ images @ columns).clamp_(0, 1)  # the weights sum to one only up to rounding


@lru_cache(maxsize=16)
def _blur_operator(size: int, level: int) -> Float[Tensor, "size size"]:
    """Return kornia's blur of one line of `size` pixels as a matrix: row i is the blurred i-th unit line.

    Blur is linear and separable, so two small products replace a convolution with a wide kernel, in a fraction of its
    time on a CPU.
    """
    from kornia.filters import gaussian_blur2d

    lines = torch.eye(size, dtype=torch.float64)[None, None]
    return gaussian_blur2d(lines, (1, 2 * math.ceil(4 * level) + 1), (1.0, float(level)), border_type="reflect")[0, 0]


def gaussian_blur_c(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Apply ImageNet-C's Gaussian blur (skimage's `gaussian`, with the last pixel repeated beyond the border)."""
    return smooth(images, BLUR_SIGMA[level]).clamp_(0, 1)


def defocus_blur(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Convolve with a disc; borders are mirrored without repeating the last pixel."""
    kernel = defocus_kernel(level)
    reach = kernel.shape[0] // 2
    height, width = images.shape[-2:]
    if reach >= min(height, width):
        raise ValueError(
            f"defocus_blur at level {level} mirrors {reach} pixels at the border and needs larger images; got "
            f"{height}x{width}: use a larger input size"
        )
    padded = torch.nn.functional.pad(images, [reach] * 4, mode="reflect")
    return _each(
        padded, lambda image: torch.nn.functional.conv2d(image, kernel.to(image).expand(3, 1, -1, -1), groups=3)
    )


@lru_cache(maxsize=5)
def defocus_kernel(level: int) -> Float[Tensor, "side side"]:
    """Return the disc of a severity, smoothed with a Gaussian of 3 taps (5 beyond radius 8), in float64.

    At the edge of the disc's square the Gaussian is mirrored, not cut off, as in OpenCV.
    """
    radius, alias = DEFOCUS[level]
    half = max(8, radius)
    line = torch.arange(-half, half + 1, dtype=torch.float64)
    disc = (line[:, None] ** 2 + line**2 <= radius**2).double()
    taps = torch.arange(-1, 2) if radius <= 8 else torch.arange(-2, 3)
    weights = torch.exp(-(taps.double() ** 2) / (2 * alias**2))
    weights /= weights.sum()
    reach = len(taps) // 2
    padded = torch.nn.functional.pad((disc / disc.sum())[None, None], [reach] * 4, mode="reflect")
    return torch.nn.functional.conv2d(padded, torch.outer(weights, weights)[None, None])[0, 0]


def glass_blur(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Blur, move every pixel's colour to a neighbour at random, and blur again.

    From the lower right corner, row by row, each pixel p takes the colour that p + d then has, d uniform in [-reach,
    reach - 1] in both directions. ImageNet-C's code means to swap the two, but assigns numpy views, so that its
    published images hold copies, as here.
    """
    sigma, reach, times = GLASS[level]
    blurred = smooth(images, sigma)
    height, width = images.shape[-2:]
    source = glass_source(height, width, reach, times, image_ids, seed)
    moved = blurred.flatten(2).gather(2, source[:, None].expand(-1, images.shape[1], -1)).view_as(images)
    return smooth(moved, sigma).clamp_(0, 1)


def glass_source(
    height: int, width: int, reach: int, times: int, image_ids: Ids, seed: int
) -> Int[Tensor, "batch height_x_width"]:
    """Return the source of each pixel's colour after all pixels have been displaced `times` times.

    Pixels (i, j), counted from the lower right, with equal (reach + 1) i + j do not affect each other, and all pixels
    that one depends on come before it in that order just as they do row by row: each such diagonal is one step.
    """
    drawn = uniform(image_ids, 2 * times * height * width, named_seed(seed, "glass_blur"))
    steps = (drawn * (2 * reach)).long().clamp_(max=2 * reach - 1) - reach
    dy, dx = steps.view(-1, times, 2, height * width).unbind(2)
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    order = (reach + 1) * np.arange(len(rows))[:, None] + np.arange(len(columns))
    places = (rows[:, None] * width + columns).ravel()
    sequence = np.argsort(order.ravel(), kind="stable")
    counts = np.bincount(order.ravel()).tolist()
    diagonals = torch.from_numpy(places[sequence]).to(image_ids.device).split(counts)
    source = torch.arange(height * width, device=image_ids.device).repeat(len(image_ids), 1)
    for t in range(times):
        seen = torch.arange(height * width, device=image_ids.device) + dy[:, t] * width + dx[:, t]
        for here in diagonals:
            source[:, here] = source.gather(1, seen[:, here])
    return source


def motion_blur(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Smear in a direction drawn for each image, -45 to 45 degrees (see `streak`)."""
    radius, sigma = MOTION[level]
    angle = 90 * uniform(image_ids, 1, named_seed(seed, "motion_blur"))[:, 0] - 45
    return streak(images, radius, sigma, angle).clamp_(0, 1)


def zoom_blur(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Average the image and its enlargements."""
    factors = np.arange(1, *ZOOM[level]).tolist()
    total = images.clone()
    for factor in factors:
        total += zoom_in(images, factor)
    return (total / (len(factors) + 1)).clamp_(0, 1)


def box_blur(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Average windows of 2 level + 1 pixels a side, with the last pixel repeated beyond the border (kornia).

    Source: Gonzalez and Woods, Digital Image Processing (2018), section 3.5.
    """
    from kornia.filters import box_blur as kornia_box_blur

    return _each(images, lambda image: kornia_box_blur(image, 2 * level + 1, "replicate"))


def median_blur(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Take the median of windows of 2 level + 1 pixels a side, per channel, repeating the last pixel (kornia)."""
    from kornia.filters import median_blur as kornia_median_blur

    return _each(images, lambda image: kornia_median_blur(image, 2 * level + 1, "replicate"))


def linear_motion_blur(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Average 2 level + 1 pixels on a line through each pixel, in a direction drawn for each image (kornia).

    Source: Gonzalez and Woods, Digital Image Processing (2018), section 5.6.
    """
    from kornia.filters import motion_blur as kornia_motion_blur

    angles = iter(180 * uniform(image_ids, 1, named_seed(seed, "linear_motion_blur")))

    def smear(image: Tensor) -> Tensor:
        angle = next(angles).to(image)
        return kornia_motion_blur(image, 2 * level + 1, angle, torch.zeros_like(angle), "replicate")

    return _each(images, smear)


def bilateral_blur(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Blur with a Gaussian of `level` pixels, cut at 2 standard deviations, that preserves edges (kornia).

    Source: Tomasi and Manduchi, ICCV (1998).
    """
    from kornia.filters import bilateral_blur as kornia_bilateral_blur

    side, sigma = 4 * level + 1, (float(level), float(level))
    return _each(images, lambda image: kornia_bilateral_blur(image, side, BILATERAL_COLOUR, sigma, "replicate"))


def _each(images: Images, filtered: Callable[[Tensor], Tensor]) -> Float[Tensor, "batch 3 own_height own_width"]:
    """Filter image by image, so that batch size does not change a filter's order of sums (and a CPU's cache holds it).

    On a GPU in float64, since its float32 convolutions may round to 10 bits (TF32).
    """
    exact = images.double() if images.is_cuda else images
    return torch.cat([filtered(image) for image in exact.split(1)]).clamp_(0, 1).to(images.dtype)
