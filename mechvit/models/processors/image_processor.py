"""A checkpoint's image processor, computed with PIL and numpy (no torchvision)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mechvit.models.checkpoints.checkpoint_config import one_line, read_settings
from mechvit.models.checkpoints.revisions import hub_revision

from .pixel_values import pixel_scale
from .processor_values import MOST_PIXELS, check_processor_values

FILES = ("processor_config.json", "preprocessor_config.json")
"""Files in which Hugging Face keeps an image processor, in order of precedence: inside a processor's, or its own."""


def read_image_processor(where: str | os.PathLike[str]) -> Any:
    """Load the image processor of a folder or hub id and check that every step is understood; None where it has none.

    Two families' processors cannot be used as they are. DINOv3's exists for torchvision alone; here it is a
    `ViTImageProcessorPil` with the same settings, which resizes bytes instead of floats. SigLIP 2's cuts an image of
    any shape into at most `max_num_patches`; here it is a `SiglipImageProcessorPil` that resizes to the square of as
    many patches.

    No code that a checkpoint brings is run.

    Raises:
        ValueError: the file is damaged, of a kind that transformers does not know, or has a setting that is invalid or
            cannot be reproduced (`pixel_scale`); names the file.
    """
    where = os.path.expanduser(os.fspath(where))
    found = _settings(where)
    if found is None:
        return None
    file, settings = found
    check_processor_values(settings, where, file)
    try:
        processor = _make(where, settings)
    except Exception as error:  # invalid settings raise exceptions of many kinds
        own = "custom code" in str(error)
        reason = "it needs code of its own, which is never run." if own else one_line(error)
        kind = settings.get("image_processor_type")
        raise ValueError(
            f"{where}: its image processor{'' if kind is None else f' ({kind})'} must be one of transformers' own, as "
            f"`save_pretrained` writes it; {reason} Correct its {file}."
        ) from error
    try:
        pixel_scale(processor)
    except Exception as error:  # invalid settings raise exceptions of many kinds
        raise ValueError(f"the image processor of {where} (its {file}): {one_line(error)}") from error
    return processor


def _settings(where: str) -> tuple[str, dict[str, Any]] | None:
    """Read an image processor's settings and the name of their file, as transformers chooses it; None without one.

    Raises:
        ValueError: it is damaged, or holds no settings; names the checkpoint and the file.
    """
    import transformers

    options = {"revision": hub_revision(where), "_raise_exceptions_for_missing_entries": False}
    for file in FILES:
        try:
            path = transformers.utils.cached_file(where, file, **options)
        except (OSError, ValueError) as error:
            raise ValueError(f"{where}: its {file} could not be found: {one_line(error)}") from error
        if path is None:
            continue
        settings = read_settings(Path(path), where)
        if not isinstance(settings, dict):
            raise ValueError(
                f"{where}: its {file} must hold settings by name, as `save_pretrained` writes them; it holds a "
                f"{type(settings).__name__}. Save the image processor again."
            )
        if file == FILES[0] and "image_processor" not in settings:
            continue  # an older file, for a tokenizer only
        settings = settings["image_processor"] if file == FILES[0] else settings
        if not isinstance(settings, dict):
            raise ValueError(f"{where}: image_processor of its {file} must hold settings by name; got {settings!r}.")
        return file, settings
    return None


def _make(where: str, settings: dict[str, Any]) -> Any:
    """Build transformers' own processor from these settings."""
    import transformers

    kind = settings.get("image_processor_type") or ""
    if kind.startswith("DINOv3ViT"):
        return transformers.ViTImageProcessorPil.from_dict(settings | {"image_processor_type": "ViTImageProcessor"})
    if kind.startswith("Siglip2"):
        theirs = transformers.Siglip2ImageProcessorPil.from_dict(settings)
        side = int(theirs.max_num_patches**0.5) * theirs.patch_size
        if side > MOST_PIXELS:
            raise ValueError(f"max_num_patches and patch_size make a side of {side} pixels; at most {MOST_PIXELS}.")
        kept = ("do_resize", "do_rescale", "do_normalize", "image_mean", "image_std", "resample", "rescale_factor")
        same = {name: getattr(theirs, name) for name in kept}
        return transformers.SiglipImageProcessorPil(size={"height": side, "width": side}, **same)
    return transformers.AutoImageProcessor.from_pretrained(
        where, backend="pil", trust_remote_code=False, revision=hub_revision(where) or "main"
    )


def output_size(image_processor: Any) -> int | None:
    """Return the side, in pixels, of the squares that an image processor makes of any image; None if it does not."""
    sizes = set()
    for shape in ((60, 90), (90, 60)):
        found = image_processor(Image.new("RGB", shape), return_tensors="np")["pixel_values"]
        sizes.add(np.shape(found)[2:])
    (size, *others) = sizes
    return int(size[0]) if not others and len(size) == 2 and size[0] == size[1] else None
