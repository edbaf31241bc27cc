"""A checkpoint's image processor, on PIL and numpy: no torchvision."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from .checkpoint_config import one_line
from .pixel_values import pixel_scale
from .revisions import hub_revision

FILES = ("preprocessor_config.json", "processor_config.json")
"""Where Hugging Face keeps an image processor: by itself, or as a part of a processor that has a tokenizer, too."""
MOST_PIXELS = 8192
"""The longest side of what an image processor makes."""


def read_image_processor(where: str | os.PathLike[str]) -> Any:
    """Load the image processor of a folder or hub id, and see that all it does is understood; None where it has none.

    Two families' processors cannot be used as they are. DINOv3's exists for torchvision alone; here it is a
    `ViTImageProcessorPil` with the same settings, which resizes bytes instead of floats. SigLIP 2's cuts an image of
    any shape into at most `max_num_patches`; here it is a `SiglipImageProcessorPil` that resizes to the square of as
    many patches.

    No code that a checkpoint brings is run.

    Raises:
        ValueError: the file is damaged, of a kind that transformers does not know, or with a setting that cannot be
            reproduced (`pixel_scale`).
    """
    where = os.path.expanduser(os.fspath(where))
    try:
        processor = _read(where)
    except Exception as error:  # settings of another form raise almost anything
        own = "custom code" in str(error)
        reason = "it needs code of its own, which is never run." if own else one_line(error)
        raise ValueError(
            f"{where}: its image processor must be one of transformers' own, as `save_pretrained` writes it; "
            f"{reason} Correct {' or '.join(FILES)}."
        ) from error
    if processor is not None:
        try:
            pixel_scale(processor)
        except Exception as error:  # as above
            raise ValueError(f"the image processor of {where}: {one_line(error)}") from error
    return processor


def _read(where: str) -> Any:
    import transformers
    from transformers.image_processing_utils import BaseImageProcessor

    revision = hub_revision(where)
    options = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
    if not any(transformers.utils.cached_file(where, name, **options) for name in FILES):
        return None
    settings, _ = BaseImageProcessor.get_image_processor_dict(
        where, image_processor_filename=FILES[0], revision=revision or "main"
    )
    check_sides(settings)
    kind = settings.get("image_processor_type") or ""
    if kind.startswith("DINOv3ViT"):
        settings["image_processor_type"] = "ViTImageProcessor"
        return transformers.ViTImageProcessorPil.from_dict(settings)
    if kind.startswith("Siglip2"):
        theirs = transformers.Siglip2ImageProcessorPil.from_dict(settings)
        side = int(theirs.max_num_patches**0.5) * theirs.patch_size
        check_sides({"size": side})
        kept = ("do_resize", "do_rescale", "do_normalize", "image_mean", "image_std", "resample", "rescale_factor")
        same = {name: getattr(theirs, name) for name in kept}
        return transformers.SiglipImageProcessorPil(size={"height": side, "width": side}, **same)
    return transformers.AutoImageProcessor.from_pretrained(
        where, backend="pil", trust_remote_code=False, revision=revision or "main"
    )


def check_sides(settings: Mapping[str, Any]) -> None:
    """Raise a ValueError for a size that no picture should be resized, cropped or padded to, before one is."""
    for name in ("size", "crop_size", "pad_size"):
        found = settings.get(name)
        for side in found.values() if isinstance(found, dict) else found if isinstance(found, list) else [found]:
            if isinstance(side, int | float) and not side <= MOST_PIXELS:
                raise ValueError(f"{name} must be at most {MOST_PIXELS} pixels; got {side}.")


def output_size(image_processor: Any) -> int | None:
    """Give the side, in pixels, of the squares that an image processor makes of any image; None if it does not."""
    sizes = set()
    for shape in ((60, 90), (90, 60)):
        found = image_processor(Image.new("RGB", shape), return_tensors="np")["pixel_values"]
        sizes.add(np.shape(found)[2:])
    (size, *others) = sizes
    return int(size[0]) if not others and len(size) == 2 and size[0] == size[1] else None
