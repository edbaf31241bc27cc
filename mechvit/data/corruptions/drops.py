"""Spatter: drops of water, or of mud, on the lens."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.data.counter_rng import named_seed, standard_normal

from .noise import Ids, Images
from .separable import smooth

SPATTER: dict[int, tuple[float, float, float, float, float, bool]] = {
    1: (0.65, 0.3, 4, 0.69, 0.6, False),
    2: (0.65, 0.3, 3, 0.68, 0.6, False),
    3: (0.65, 0.3, 2, 0.68, 0.5, False),
    4: (0.65, 0.3, 1, 0.65, 1.5, True),
    5: (0.67, 0.4, 1, 0.65, 1.5, True),
}
"""ImageNet-C's mean, standard deviation, blur (pixels) and threshold of the liquid, the water's brightness or the mud's
blur, and whether it is mud (arXiv:1903.12261, its code for 224 px).
"""
WATER, MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)


def spatter(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Put blurred thresholded noise on the image: lit water up to severity 3, then mud.

    Water is shaded on the CPU, image by image (see `water_light`).
    """
    mean, std, blur, threshold, last, is_mud = SPATTER[level]
    height, width = images.shape[-2:]
    noise = standard_normal(image_ids, height * width, named_seed(seed, "spatter"))
    liquid = smooth((mean + std * noise).view(-1, 1, height, width), blur)
    if is_mud:
        cover = smooth((liquid > threshold).float(), last)
        cover = torch.where(cover < 0.8, 0, cover).to(images.dtype)
        return (images * (1 - cover) + cover * _colour(MUD, images)).clamp_(0, 1)
    bytes_ = (torch.where(liquid < threshold, 0, liquid) * 255).clamp(0, 255).to(torch.uint8)
    light = torch.from_numpy(np.stack([water_light(layer[0]) for layer in bytes_.cpu().numpy()]))
    return (images + last * light[:, None].to(images) * _colour(WATER, images)).clamp_(0, 1)


def water_light(liquid: np.ndarray) -> Float[np.ndarray, "height width"]:
    """Compute the brightness of each pixel of the liquid (uint8), 0 to 1: an embossed distance from the drops' edges.

    Edges by Canny's detector with thresholds 50 and 150, Euclidean distance up to 20 pixels, averaged over 3 x 3,
    spread by histogram equalisation, embossed, averaged again, times the liquid, over the largest. ImageNet-C calls
    OpenCV; here are scipy and skimage, whose detector takes gradients' Euclidean norm and whose distance is exact.
    """
    from scipy.ndimage import correlate, distance_transform_edt, uniform_filter
    from skimage.feature import canny

    edges = canny(liquid.astype(np.float64), sigma=0, low_threshold=50, high_threshold=150)
    distance = distance_transform_edt(~edges) if edges.any() else np.full(liquid.shape, 20.0)
    distance = uniform_filter(np.minimum(distance, 20), 3, mode="mirror")
    spread = equalised((distance + 1e-6).astype(np.uint8))  # running sums return just below 20 for 20
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    relief = correlate(spread.astype(np.int64), emboss, mode="mirror").clip(0, 255)
    light = liquid * np.rint(uniform_filter(relief.astype(np.float64), 3, mode="mirror"))
    return light / max(light.max(), 1)


def equalised(values: np.ndarray) -> np.ndarray:
    """Apply OpenCV's histogram equalisation to uint8: the smallest value becomes 0, the largest 255."""
    counts = np.bincount(values.ravel(), minlength=256).cumsum()
    first = counts[values.min()]
    if first == values.size:
        return values
    return np.rint(255 * (counts - first).clip(0) / (values.size - first)).astype(np.uint8)[values]


def _colour(rgb: tuple[float, float, float], images: Images) -> Tensor:
    return torch.tensor(rgb, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
