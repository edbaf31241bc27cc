"""Digital corruptions: contrast, elastic transform, pixelate, JPEG, saturation, sharpening."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.data.counter_rng import named_seed, uniform

from .noise import Ids, Images
from .separable import along_lines, box_resize_operator, smooth

CONTRAST: dict[int, float] = {1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1, 5: 0.05}
"""ImageNet-C's factor of contrast (arXiv:1903.12261, its code for 224 px, as for all constants here)."""
ELASTIC: dict[int, tuple[float, float, float]] = {
    1: (2, 0.7, 0.1),
    2: (2, 0.08, 0.2),
    3: (0.05, 0.01, 0.02),
    4: (0.07, 0.01, 0.02),
    5: (0.12, 0.01, 0.02),
}
"""ImageNet-C's displacement amplitude and smoothness, and affine corners' reach, in units of `ELASTIC_UNIT`."""
ELASTIC_UNIT = 244 / 224
"""Unit of `ELASTIC` in image sides: ImageNet-C writes multiples of 244 pixels for its images of 224."""
PIXELATE: dict[int, float] = {1: 0.6, 2: 0.5, 3: 0.4, 4: 0.3, 5: 0.25}
"""ImageNet-C's factor by which each side is shrunk."""
JPEG_QUALITY: dict[int, int] = {1: 25, 2: 18, 3: 15, 4: 10, 5: 7}
"""ImageNet-C's JPEG quality."""
SATURATE: dict[int, tuple[float, float]] = {1: (0.3, 0), 2: (0.1, 0), 3: (2, 0), 4: (5, 0.1), 5: (20, 0.2)}
"""ImageNet-C's factor and offset of the HSV saturation: two severities reduce it, three increase it."""


def contrast(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Draw each channel towards its mean over the image."""
    # image by image: a mean over a whole batch's last axes may sum in another order
    mean = torch.stack([image.mean((1, 2), keepdim=True) for image in images])
    return ((images - mean) * CONTRAST[level] + mean).clamp_(0, 1)


def elastic_transform(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Move three corners at random (an affine map), then every pixel by a smooth random field."""
    height, width = images.shape[-2:]
    unit = ELASTIC_UNIT * min(height, width)
    strength, sigma, reach = (unit * part for part in ELASTIC[level])
    drawn = 2 * uniform(image_ids, 6 + 2 * height * width, named_seed(seed, "elastic_transform")) - 1
    y, x = affine_source(height, width, reach * drawn[:, :6].reshape(-1, 3, 2))
    tilted = sample(images, y, x, align_corners=True)
    field = smooth(drawn[:, 6:].reshape(-1, 2, height, width), sigma, "reflect", 3.0) * strength
    rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
    return sample(tilted, rows[:, None] + field[:, 1], columns + field[:, 0], align_corners=False).clamp_(0, 1)


def affine_source(
    height: int, width: int, moved: Float[Tensor, "batch 3 2"]
) -> tuple[Float[Tensor, "batch height width"], Float[Tensor, "batch height width"]]:
    """Return the source coordinates y and x of each pixel under the affine map that moves three corners of a square by
    `moved` (x, y), in pixels.

    The corners lie a third of the shorter side from the middle: lower right, upper right, upper left.
    """
    third = min(height, width) // 3
    corners = torch.tensor([[third, third], [third, -third], [-third, -third]], device=moved.device)
    corners = (corners + torch.tensor([width // 2, height // 2], device=moved.device)).double()
    targets = corners + moved.double()
    homogeneous = torch.cat([targets, torch.ones_like(targets[..., :1])], -1)
    # one image at a time: batched solvers may pivot and round differently
    back = torch.stack([torch.linalg.solve(points, corners) for points in homogeneous])
    y, x = torch.meshgrid(*(torch.arange(s, device=moved.device).double() for s in (height, width)), indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], -1)
    source = pixels[None, :, :, 0, None] * back[:, None, None, 0] + pixels[None, :, :, 1, None] * back[:, None, None, 1]
    source = source + back[:, None, None, 2]
    return source[..., 1], source[..., 0]


def sample(
    images: Float[Tensor, "batch channel height width"],
    y: Float[Tensor, "batch height width"],
    x: Float[Tensor, "batch height width"],
    *,
    align_corners: bool,
) -> Float[Tensor, "batch channel height width"]:
    """Sample images between pixels, mirrored at the border: about the last pixel's centre (OpenCV's reflect-101) with
    `align_corners`, else about its edge (scipy's reflect).
    """
    height, width = images.shape[-2:]
    if align_corners:
        grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    else:
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return torch.nn.functional.grid_sample(
        images, grid.to(images.dtype), padding_mode="reflection", align_corners=align_corners
    )


def pixelate(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Shrink and enlarge with a box filter (Pillow's, without its rounding to bytes)."""
    small = [max(1, int(size * PIXELATE[level])) for size in images.shape[-2:]]
    sizes = list(zip(images.shape[-2:], small, strict=True))
    shrunk = along_lines(images, *(box_resize_operator(size, part) for size, part in sizes))
    return along_lines(shrunk, *(box_resize_operator(part, size) for size, part in sizes)).clamp_(0, 1)


def jpeg_compression(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Encode and decode as JPEG (Pillow, on the CPU, image by image, after rounding to bytes)."""
    from PIL import Image

    pixels = (images * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    decoded = []
    for image in pixels:
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY[level])
        decoded.append(np.array(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(images) / 255


def saturate(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Scale the HSV saturation (kornia)."""
    from kornia.color import hsv_to_rgb, rgb_to_hsv

    factor, more = SATURATE[level]
    hue, saturation, value = rgb_to_hsv(images).unbind(1)
    return hsv_to_rgb(torch.stack([hue, (saturation * factor + more).clamp(0, 1), value], 1)).clamp_(0, 1)


def sharpen(images: Images, level: int, image_ids: Ids, seed: int) -> Images:
    """Apply an unsharp mask: add `level` times the difference from a Gaussian blur of 1 pixel (skimage's
    `unsharp_mask`).

    Source: Gonzalez and Woods, Digital Image Processing (2018), section 3.6.
    """
    return (images + level * (images - smooth(images, 1.0, "reflect"))).clamp_(0, 1)
