"""Common corruptions of image batches: on [0, 1] RGB at the model's input size, before normalisation.

The definitions and constants are ImageNet-C's for images of 224 pixels (arXiv:1903.12261 and its code), without its
roundings to bytes on the way and without its last JPEG compression. At another input size, lengths in pixels are
applied as they are published, as the paper's blur is; what ImageNet-C states as a share of the image (zoom factors,
pixelation, the elastic transform's multiples of 244) stays one. So a blur of 48-pixel images is harsher than the same
blur of 224-pixel images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.arguments import checked
from mechvit.data.corruption_spec import CORRUPTION_FAMILIES, Corruption

from . import blur, digital, drops, noise, weather
from .blur import gaussian_blur
from .noise import NOISE_STD, gaussian_noise

__all__ = ["CORRUPTIONS", "NOISE_STD", "corrupt", "gaussian_blur", "gaussian_noise"]

CORRUPTIONS: dict[str, Callable[[Tensor, int, Tensor, int], Tensor]] = {
    family: next(getattr(file, family) for file in (noise, blur, weather, digital, drops) if hasattr(file, family))
    for family, about in CORRUPTION_FAMILIES.items()
    if family != "clean" and about.function is None
}
"""Family -> its function (images, level, image_ids, seed) -> images, which has the family's name."""


@checked
@torch.no_grad()
def corrupt(
    images: Float[Tensor, "batch channel height width"],
    corruption: Corruption | str,
    image_ids: Int[Tensor, " batch"],
    *,
    seed: int = 0,
) -> Float[Tensor, "batch channel height width"]:
    """Corrupt a batch of images on its own device.

    On one device an image always gets the same pixels, whatever else is in its batch. On another device uniform numbers
    are equal to the bit and normal ones to 4e-6 (see `mechvit.data.counter_rng`), and filters agree to rounding; where
    a rounded value crosses a threshold (a photon's count, snow, spatter, JPEG's bytes), single values differ by more.

    Args:
        images: RGB in [0, 1] at the model's input size, not normalised.
        corruption: what to apply; a string is read with `Corruption.parse`. `CLEAN` returns the images themselves.
        image_ids: each image's id. With `seed` it determines everything random about an image, so that batch size,
            order, workers and ranks never change a pixel.
        seed: non-negative; another seed is another draw of the noise.

    Raises:
        ValueError: an empty batch, images outside [0, 1] or not floating, ids that do not match the batch, an unknown
            corruption, images that are not RGB (the paper's two families take any channels).

    Source: Hendrycks and Dietterich, arXiv:1903.12261 (ImageNet-C); the paper's section 3.1 (blur levels).
    """
    if isinstance(corruption, str):
        corruption = Corruption.parse(corruption)
    if not isinstance(images, Tensor) or not isinstance(image_ids, Tensor):
        raise ValueError(
            "images and image_ids must be tensors, [batch, channel, height, width] and [batch]; got a "
            f"{type(images).__name__} and a {type(image_ids).__name__}"
        )
    if images.ndim != 4 or not images.is_floating_point():
        step = ": add the batch's dimension, as in images[None]" if images.ndim == 3 else ""
        raise ValueError(
            f"images must be a floating [batch, channel, height, width]; got {images.dtype} {tuple(images.shape)}{step}"
        )
    if not len(images):
        raise ValueError(f"there is no image to corrupt: the batch is empty, {list(images.shape)}; give at least one")
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
    if images.shape[1] != 3 and corruption.family not in ("gaussian_blur", "gaussian_noise"):
        raise ValueError(f"{corruption.key} takes RGB images, [batch, 3, height, width]; got {tuple(images.shape)}")
    return CORRUPTIONS[corruption.family](images, corruption.level, image_ids, seed)
