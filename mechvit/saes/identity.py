"""The fingerprint by which an SAE remembers the images that it was trained on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvit.data.picture import open_picture

if TYPE_CHECKING:
    import datasets

_SAMPLED = 64
"""Images of a data set whose pixels are read; ids and labels are read of all."""


def images_fingerprint(images: datasets.Dataset) -> str:
    """The first 16 hex digits of a SHA-256 of a data set: every id and label, and the pixels of evenly spaced images.

    Where the data lies, and how it came there, does not matter.
    """
    from mechvit.data.picture_column import opened_here

    digest = hashlib.sha256(str(len(images)).encode())
    plain = images.with_format("numpy")
    for column in ("image_id", "label"):
        digest.update(np.asarray(plain[column][:], dtype=np.int64).tobytes())
    column = "pixels" if "pixels" in images.column_names else "image"
    images = opened_here(images)
    for row in np.unique(np.linspace(0, len(images) - 1, min(_SAMPLED, len(images))).round().astype(int)):
        digest.update(_bytes(images[int(row)][column]))
    return digest.hexdigest()[:16]


def _bytes(image: Any) -> bytes:
    pixels = image if isinstance(image, (list, np.ndarray)) else open_picture(image)
    return np.ascontiguousarray(np.asarray(pixels, dtype=np.uint8)).tobytes()
