"""A random split of the images: one part to choose on, one to report."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import Bool

from mechvit.data.batches import ImageBatch
from mechvit.settings_checks import SHARE, check_number

from .inputs import Images

if TYPE_CHECKING:
    import datasets


def chosen_rows(n_images: int, fraction: float = 0.5, *, seed: int = 0) -> Bool[np.ndarray, " images"]:
    """Draw the images to choose on, a fraction of all (rounded); the others are held out for reporting.

    Raises:
        ValueError: a part would be empty.
    """
    check_number("fraction", fraction, SHARE)
    count = round(fraction * n_images)
    if not 0 < count < n_images:
        raise ValueError(
            f"one part of the images is for choosing and the other for reporting, and each needs at least one image; "
            f"the fraction {fraction} of {n_images} images gives {count} and {n_images - count}: give more images or "
            "another fraction"
        )
    chosen = np.zeros(n_images, dtype=bool)
    chosen[np.random.default_rng(seed).permutation(n_images)[:count]] = True
    return chosen


def split_images(images: Images, fraction: float = 0.5, *, seed: int = 0) -> tuple[Images, Images]:
    """Split images into those to choose on and those held out (see `chosen_rows`), each in the order of `images`."""
    chosen = chosen_rows(len(images), fraction, seed=seed)
    return _rows(images, np.flatnonzero(chosen)), _rows(images, np.flatnonzero(~chosen))


def _rows(images: Images, rows: np.ndarray) -> Images:
    if isinstance(images, ImageBatch):
        return images.take(rows)
    return cast("datasets.Dataset", images).select(rows)
