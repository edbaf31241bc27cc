"""ImageNet-C's published constants, and its building blocks in float64 by scipy and skimage."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import skimage.filters
import torch

from mechvit.data.corruptions import blur, digital, drops, noise, weather

IDS = torch.tensor([3, 1_000_007])
PUBLISHED = {
    "gaussian_noise": (noise.NOISE_STD, [0.08, 0.12, 0.18, 0.26, 0.38]),
    "shot_noise": (noise.SHOT_PHOTONS, [60, 25, 12, 5, 3]),
    "impulse_noise": (noise.IMPULSE_SHARE, [0.03, 0.06, 0.09, 0.17, 0.27]),
    "speckle_noise": (noise.SPECKLE_STD, [0.15, 0.2, 0.35, 0.45, 0.6]),
    "gaussian_blur": (blur.BLUR_SIGMA, [1, 2, 3, 4, 6]),
    "defocus_blur": (blur.DEFOCUS, [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)]),
    "glass_blur": (blur.GLASS, [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)]),
    "motion_blur": (blur.MOTION, [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)]),
    "zoom_blur": (blur.ZOOM, [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)]),
    "snow": (
        weather.SNOW,
        [
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ],
    ),
    "frost": (weather.FROST, [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)]),
    "fog": (weather.FOG, [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)]),
    "brightness": (weather.BRIGHTNESS, [0.1, 0.2, 0.3, 0.4, 0.5]),
    "contrast": (digital.CONTRAST, [0.4, 0.3, 0.2, 0.1, 0.05]),
    "elastic": (
        digital.ELASTIC,
        [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)],
    ),
    "pixelate": (digital.PIXELATE, [0.6, 0.5, 0.4, 0.3, 0.25]),
    "jpeg": (digital.JPEG_QUALITY, [25, 18, 15, 10, 7]),
    "spatter": (
        drops.SPATTER,
        [
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ],
    ),
    "saturate": (digital.SATURATE, [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)]),
}


def per_image(images: torch.Tensor):
    """Height x width x channel, as scipy and skimage take them."""
    return [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]


def assert_equals(ours: torch.Tensor, theirs, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(np.stack(per_image(ours)), np.stack(theirs), rtol=0, atol=atol)


def blurred(image: np.ndarray, sigma: float, **more) -> np.ndarray:
    return skimage.filters.gaussian(image, sigma=sigma, channel_axis=-1, **more)


def streaked(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """ImageMagick's motion blur by shifts of the whole image."""
    weights = [np.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    total = 0
    for i, weight in enumerate(weights):
        dx = int(np.ceil(i * np.cos(np.deg2rad(angle)) - 0.5))
        dy = int(np.ceil(i * np.sin(np.deg2rad(angle)) - 0.5))
        shift = (-dy, -dx) + (0,) * (image.ndim - 2)
        total = total + weight * scipy.ndimage.shift(image, shift, order=0, mode="nearest")
    return total / sum(weights)


def zoomed(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle, enlarged by scipy and cut."""
    sides = image.shape[:2]
    inner = [int(np.ceil(side / factor)) for side in sides]
    top, left = ((side - part) // 2 for side, part in zip(sides, inner, strict=True))
    part = image[top : top + inner[0], left : left + inner[1]]
    large = scipy.ndimage.zoom(part, (factor, factor) + (1,) * (image.ndim - 2), order=1)
    top, left = ((part - side) // 2 for part, side in zip(large.shape, sides, strict=False))
    return large[top : top + sides[0], left : left + sides[1]]
