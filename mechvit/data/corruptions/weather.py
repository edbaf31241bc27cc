"""Weather corruptions: snow, frost, fog, brightness."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.data.counter_rng import named_seed, standard_normal, uniform

from .motion import streak
from .noise import Ids, Images
from .plasma import plasma
from .separable import smooth
from .zoom import zoom_in

BRIGHTNESS: dict[int, float] = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.5}
"""ImageNet-C's offset of the HSV value (arXiv:1903.12261, its code for 224 px, as for all constants here)."""
FOG: dict[int, tuple[float, float]] = {1: (1.5, 2), 2: (2, 2), 3: (2.5, 1.7), 4: (2.5, 1.5), 5: (3, 1.4)}
"""ImageNet-C's weight and roughness of the fog (see `plasma`)."""
FROST: dict[int, tuple[float, float]] = {1: (1, 0.4), 2: (0.8, 0.6), 3: (0.7, 0.7), 4: (0.65, 0.7), 5: (0.6, 0.75)}
"""ImageNet-C's weights of the image and of the frost."""
SNOW: dict[int, tuple[float, float, float, float, int, int, float]] = {
    1: (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    2: (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    3: (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    4: (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    5: (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
}
"""ImageNet-C's mean and standard deviation of the flakes, enlargement, threshold, radius and standard deviation of the
streak (pixels), and the weight of the image that is not whitened.
"""


def snow(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Whiten the image and add flakes: enlarged thresholded noise, smeared, once upright and once upside down."""
    from kornia.color import rgb_to_grayscale

    mean, std, zoom, threshold, radius, sigma, kept = SNOW[level]
    height, width = images.shape[-2:]
    seed = named_seed(seed, "snow")
    noise = standard_normal(image_ids, height * width + 1, seed)  # the last value determines the angle
    flakes = zoom_in(mean + std * noise[:, :-1].reshape(-1, 1, height, width), zoom)
    flakes = torch.where(flakes < threshold, 0, flakes).clamp(0, 1)
    angle = 90 * torch.special.ndtr(noise[:, -1]) - 135
    flakes = streak(flakes, radius, sigma, angle).to(images.dtype)
    whitened = torch.maximum(images, rgb_to_grayscale(images) * 1.5 + 0.5)
    return (kept * images + (1 - kept) * whitened + flakes + flakes.flip(2, 3)).clamp_(0, 1)


def frost(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Blend the image with a generated frost texture, by ImageNet-C's weights.

    ImageNet-C blends random crops of five photographs of frozen panes, which cannot be shipped here. `frost_texture`
    stands in for them, so that numbers on this corruption are near ImageNet-C's, not equal.
    """
    kept, iced = FROST[level]
    height, width = images.shape[-2:]
    texture = frost_texture(height, width, image_ids, named_seed(seed, "frost")).to(images.dtype)
    return (kept * images + iced * texture).clamp_(0, 1)


def frost_texture(height: int, width: int, image_ids: Ids, seed: int) -> Float[Tensor, "batch 3 height width"]:
    """Generate randomly rotated bluish six-armed crystals on a cloudy film; mean 0.45, standard deviation 0.2."""
    drawn = uniform(image_ids, height * width + 1, seed)
    nuclei = (drawn[:, :-1] > 0.985).float().view(-1, 1, height, width)
    arms = [streak(nuclei, 12, 8, 60 * (drawn[:, -1] + arm)) for arm in range(6)]
    crystals = smooth(torch.stack(arms).sum(0), 0.7)
    film = plasma(height, width, 2.0, image_ids, named_seed(seed, "film"))[:, None]
    ice = crystals / crystals.flatten(1).std(1).clamp(min=1e-6).view(-1, 1, 1, 1)
    ice = ice + film / film.flatten(1).std(1).view(-1, 1, 1, 1)
    centre, spread = (part.view(-1, 1, 1, 1) for part in (ice.flatten(1).mean(1), ice.flatten(1).std(1)))
    tint = torch.tensor([0.9, 1.0, 1.1], device=ice.device).view(1, 3, 1, 1)
    return ((0.45 + 0.2 * (ice - centre) / spread) * tint).clamp(0, 1)


def fog(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Add plasma clouds and scale back to the image's own maximum."""
    weight, roughness = FOG[level]
    height, width = images.shape[-2:]
    cloud = plasma(height, width, roughness, image_ids, named_seed(seed, "fog"))[:, None].to(images.dtype)
    brightest = images.amax((1, 2, 3), keepdim=True)
    return ((images + weight * cloud) * brightest / (brightest + weight)).clamp_(0, 1)


def brightness(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Raise the HSV value (kornia)."""
    from kornia.color import hsv_to_rgb, rgb_to_hsv

    hue, saturation, value = rgb_to_hsv(images).unbind(1)
    return hsv_to_rgb(torch.stack([hue, saturation, (value + BRIGHTNESS[level]).clamp(0, 1)], 1)).clamp_(0, 1)
