"""Photographs in [0, 1] for the tests of corruptions."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")


def read_photos(size: int) -> torch.Tensor:
    """[6, 3, size, size], resized from the largest square at the upper left."""
    images = []
    for name in PHOTOS:
        image = Image.fromarray(getattr(skimage.data, name)()[..., :3])
        side = min(image.size)
        images.append(np.array(image.crop((0, 0, side, side)).resize((size, size), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="session")
def photos() -> torch.Tensor:
    """Six photographs at 48 pixels."""
    return read_photos(48)


@pytest.fixture(scope="session")
def large_photos() -> torch.Tensor:
    """Two of them at ImageNet-C's own size, float64."""
    return read_photos(224)[:2].double()


@pytest.fixture(scope="session")
def images(photos) -> torch.Tensor:
    """Two photographs, float64 and not square."""
    return photos[:2, :, :, :44].double()
