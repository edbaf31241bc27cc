"""Parts of a sample in which every class has its share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def stratified_parts(labels: Int[np.ndarray, " images"], parts: int, seed: int) -> Int[np.ndarray, " images"]:
    """Return the part, 0 to parts - 1, of each image.

    The images of each class, in random order, are dealt to the parts in turn, each class where the one before ended:
    a class's shares differ by at most one image, and so do the parts.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    found = np.empty(len(labels), dtype=np.int64)
    found[order] = np.arange(len(labels)) % parts
    return found
