"""PIL images whose files are read again where Pillow keeps less than they hold.

Pillow keeps the upper byte of 16-bit colours, and a loaded picture does not show that. A picture that is not loaded is
read from its file and stays unloaded; a loaded one is compared with its file, if that still exists.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageFile

from .bit_depth import DeepPicture, Refusal, deep_picture, tiff_bits

DEEP_FORMATS = ("PNG", "TIFF", "JPEG2000", "PPM", "SGI")
"""Formats in which Pillow reads colours of 16 bits by their upper byte."""
_DARK = 4095 >> 8
"""Upper byte of the highest value of 12 bits."""
_HAND_OVER = "hand over the file's path or bytes, or an array of its values"


def open_file(source: str | bytes | os.PathLike[str]) -> Image.Image:
    """Open a path, as text or `os.PathLike`, or the bytes of a file, without reading pixels."""
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def reopener(image: Image.Image) -> Callable[[], Image.Image] | None:
    """Return a function that opens an unloaded PIL image's file again; None for all others."""
    file = getattr(image, "fp", None)
    if file is None or not getattr(image, "tile", None):
        return None

    def again() -> Image.Image:
        place = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(place)
        opened = open_file(data)
        if frame := image.tell():
            opened.seek(frame)
        return opened

    return again


def is_loaded_file(image: Image.Image) -> bool:
    """Return whether a PIL image comes from a file whose bit depth can no longer be seen."""
    return isinstance(image, ImageFile.ImageFile) and image.format in DEEP_FORMATS and not image.tile


def deep_as_loaded(image: Image.Image) -> DeepPicture | None:
    """Return the values of a loaded picture of more than eight bits per channel; None if it has eight.

    Raises:
        Refusal: its file has more than eight bits and was changed since; or the file is missing and may have had them,
            since the picture is so dark.
    """
    is_colour = not image.mode.startswith(("I", "F"))
    fresh = _from_path(image)
    if fresh is not None:
        with fresh() as opened:
            deep = deep_picture(opened, fresh)
            is_same = deep is not None and _same(opened, image)
        if deep is None and is_colour:
            return None
        if is_same:
            return deep
        if is_colour:
            raise Refusal(
                "differs from its file of 16 bits per channel, and Pillow has kept only their upper bytes: hand over "
                "an array of 16-bit values"
            )
    elif is_colour:
        _refuse_traces(image)
    return deep_picture(image, None)


def _same(one: Image.Image, other: Image.Image) -> bool:
    return one.mode == other.mode and np.array_equal(np.asarray(one), np.asarray(other))


def _from_path(image: Image.Image) -> Callable[[], Image.Image] | None:
    """Return a function that opens the file of a loaded picture at its frame; None if the file is gone."""
    path = getattr(image, "filename", "")
    if not path or not os.path.isfile(path):
        return None
    opener = partial(_at_frame, os.fsdecode(path), image.tell())
    try:
        with opener():
            return opener
    except Exception:  # the file was replaced
        return None


def _at_frame(path: str, frame: int) -> Image.Image:
    opened = open_file(path)
    if frame:
        opened.seek(frame)
    return opened


def _refuse_traces(image: Image.Image) -> None:
    """Refuse a loaded picture that shows signs of a file with 16-bit colours."""
    key = image.info.get("transparency")
    if 16 in tiff_bits(image) or (isinstance(key, tuple) and max(key, default=0) > 255):
        raise Refusal(
            f"comes from a file of 16 bits per channel, of which Pillow has kept only the upper byte: {_HAND_OVER}"
        )
    if image.format == "TIFF" or image.mode not in ("RGB", "RGBA", "LA"):
        return
    colours = np.asarray(image)[..., : 1 if image.mode == "LA" else 3]
    if (highest := int(colours.max())) <= _DARK:
        raise Refusal(
            f"is so dark (no value above {highest}) that its {image.format} file may hold 12 bits, of which Pillow has "
            f"kept only the upper four: {_HAND_OVER}; if it has eight bits, hand over a copy (image.copy())"
        )
