"""Separable filters as small matrices from scipy, Pillow or kornia, applied on the images' device.

A separable filter is two small products, whatever its width. Each image is multiplied separately, so that every product
has the same shape and batch size does not change its rounding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Border = Literal["nearest", "reflect"]
"""scipy's border modes: the last pixel repeated, or the line mirrored including its last pixel."""


def along_lines(
    images: Float[Tensor, "batch *channel height width"],
    rows: Float[Tensor, "height_out height"],
    columns: Float[Tensor, "width_out width"],
) -> Float[Tensor, "batch *channel height_out width_out"]:
    """Apply one operator along every column and one along every row."""
    rows, columns = rows.to(images), columns.to(images).T
    return torch.stack([rows @ image @ columns for image in images])


def smooth(
    images: Float[Tensor, "batch *channel height width"],
    sigma: float,
    border: Border = "nearest",
    truncate: float = 4.0,
) -> Float[Tensor, "batch *channel height width"]:
    """Apply scipy's Gaussian filter of `sigma` pixels, cut at `truncate` standard deviations (skimage's defaults)."""
    height, width = images.shape[-2:]
    operators = (gaussian_operator(size, sigma, border, truncate) for size in (height, width))
    return along_lines(images, *operators)


@lru_cache(maxsize=64)
def gaussian_operator(size: int, sigma: float, border: Border, truncate: float) -> Float[Tensor, "size size"]:
    """Return scipy's Gaussian filter of one line of `size` pixels as a matrix."""
    from scipy.ndimage import gaussian_filter1d

    return torch.from_numpy(gaussian_filter1d(np.eye(size), sigma, axis=0, mode=border, truncate=truncate))


@lru_cache(maxsize=64)
def box_resize_operator(size: int, resized: int) -> Float[Tensor, "resized size"]:
    """Return Pillow's box-filter resize of one line of `size` pixels as a matrix."""
    from PIL import Image

    lines = Image.fromarray(np.eye(size, dtype=np.float32))
    return torch.from_numpy(np.array(lines.resize((size, resized), Image.Resampling.BOX)))
