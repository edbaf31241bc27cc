"""Partners of images in another folder, decoded once as each model's image processor makes them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.models.processors.preprocessing import resizing_key
from mechvit.terminal import printable

from .batches import ImageBatch
from .conditions import PairedImages, as_condition, of_pixels
from .corruption_spec import Condition
from .corruptions import corrupt
from .pixels import unit_pixels

if TYPE_CHECKING:
    import datasets

HELD_BYTES = 2**30
"""Most bytes of decoded partners that a process keeps, the last used ones."""
_DECODED: OrderedDict[tuple[str, int, str], np.ndarray] = OrderedDict()
"""(Path of a file, its time of change, how it is resized) -> bytes [3, height, width]."""
_UNKNOWN = (
    "paired images are found by each image's path below its folder, and these images have none: load them from a "
    "folder, as folder:PATH"
)


def check_partners(condition: PairedImages, images: datasets.Dataset | ImageBatch) -> None:
    """Refuse images that lack a partner, before anything is computed.

    Raises:
        ValueError: the images come from no folder, or are named by whole paths; or counts those without a partner and
            names the first.
    """
    if isinstance(images, ImageBatch):
        paths: Sequence[str] | None = images.paths
    else:
        paths = images["path"][:] if "path" in images.column_names else None
    if paths is None:
        raise ValueError(_UNKNOWN)
    if whole := [path for path in paths if os.path.isabs(path) or ".." in PurePath(path).parts]:
        raise ValueError(
            f"paired images are found by each image's path below its folder, and {printable(whole[0])} is no path "
            "below one: load the images from a folder, as folder:PATH"
        )
    missing = [path for path in paths if not os.path.isfile(os.path.join(condition.root, path))]
    if missing:
        some = ", ".join(map(printable, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"{len(missing)} of {len(paths)} images have no partner in {printable(condition.root)}, which must have "
            f"the same names in the same folders: {some}"
        )


def partners(condition: PairedImages, batch: ImageBatch, image_processor: Any) -> Float[Tensor, "batch 3 height width"]:
    """Return the partners of a batch, in [0, 1], as an image processor resizes them.

    Raises:
        ValueError: as `check_partners`; no image processor; a file that is no picture.
    """
    check_partners(condition, batch)
    if image_processor is None:
        raise ValueError("paired images need the model's image processor, and this model has none")
    resizing = resizing_key(image_processor)
    files = [os.path.join(condition.root, path) for path in batch.paths or ()]
    keys = [(file, os.stat(file).st_mtime_ns, resizing) for file in files]
    new = [key for key in dict.fromkeys(keys) if key not in _DECODED]
    if new:
        made = unit_pixels([file for file, _, _ in new], image_processor)
        _DECODED.update(zip(new, made, strict=True))
    found = torch.from_numpy(np.stack([_DECODED[key] for key in keys]))
    for key in keys:
        _DECODED.move_to_end(key)
    while sum(pixels.nbytes for pixels in _DECODED.values()) > HELD_BYTES:
        _DECODED.popitem(last=False)
    return found.to(batch.images.device).to(torch.float32).div_(255)


def shown_without_model(
    batch: ImageBatch, condition: Condition | str, image_processor: Any, *, seed: int = 0
) -> Float[Tensor, "batch 3 height width"]:
    """Return a batch's images under a condition that needs no model: clean, a corruption, a function, their partners.

    Raises:
        ValueError: an attack, and as `corrupt` and `partners`.
    """
    condition = as_condition(condition)
    if isinstance(condition, PairedImages):
        return partners(condition, batch, image_processor)
    return corrupt(batch.images, of_pixels(condition), batch.image_ids, seed=seed)
