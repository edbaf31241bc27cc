"""Pictures of more than eight bits per channel, converted to bytes by the range of their values.

A value v becomes 255 (v - low) / (high - low), rounded. Low (black) and high (white) are given by the caller, else
stated in the file, else 0 and 65,535 for 16 bits. Pillow's own conversion cuts 16-bit grey at 255 (white), real numbers
in [0, 1] to 0 (black), and keeps the upper byte of 16-bit colour (nearly black if 12 bits are used).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

FULL_RANGE = (0.0, 65535.0)
"""Black and white of 16 bits."""
EIGHT_BITS = (0.0, 255.0)
"""Black and white of eight bits."""
TWELVE_BITS = 4095
"""Highest value of 12 bits, as X-rays have them."""
_FORMATS = ("PNG", "TIFF", "JPEG2000", "PPM", None)
"""Formats in which more than eight bits are supported; None is a picture in memory."""
_BITS, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339
_LOWEST, _HIGHEST = (340, 280), (341, 281)
"""TIFF's tags SMinSampleValue and MinSampleValue, and those of the highest value."""


class Refusal(ValueError):
    """Reason why a picture is refused: a sentence without its subject."""


@dataclass(frozen=True)
class DeepPicture:
    """The values of a picture of more than eight bits per channel."""

    values: np.ndarray
    """Pixels, [height, width] or [height, width, channels]."""
    mode: str
    """Pillow's name for the same channels in bytes: L, LA, RGB, RGBA, RGBa or CMYK."""
    stated: tuple[float, float] | None = None
    """Black and white as stated in the file; None if it states neither."""
    is_inverted: bool = False
    """Whether the lowest value is white (TIFF's WhiteIsZero)."""
    transparent: int | tuple[int, ...] | None = None
    """Transparent value (PNG's tRNS)."""

    def in_bytes(self, pixel_range: tuple[float, float] | None) -> tuple[Image.Image, int | None]:
        """Return the picture in bytes, and its highest value if 65,535 was assumed to be white.

        Raises:
            Refusal: black and white are neither stated nor given, or values lie outside that range or are not finite.
        """
        n_alpha = int(self.mode in ("LA", "RGBA", "RGBa"))
        channels = self.values[..., None] if self.values.ndim == 2 else self.values
        colours, alpha = np.split(channels, [channels.shape[-1] - n_alpha], axis=-1)
        lowest, highest = _extremes(colours)
        known = pixel_range or self.stated
        if known is None and self.values.dtype != np.uint16:
            raise Refusal(
                f"holds values from {lowest:.6g} to {highest:.6g} and does not state which are black and white: say so "
                "with pixel_range=(LOW, HIGH)"
            )
        low, high = known or FULL_RANGE
        if lowest < low or highest > high:
            whose = "pixel_range gives" if pixel_range else "the file states"
            raise Refusal(
                f"holds values from {lowest:.6g} to {highest:.6g}, outside the {low:g} to {high:g} that {whose}"
            )
        mode, parts = self.mode, [_scaled(colours, low, high)]
        if self.is_inverted:
            parts[0] = 255 - parts[0]
        if n_alpha and self.values.dtype == np.uint16 and (alpha == FULL_RANGE[1]).all():
            mode = mode[:-1]
        elif n_alpha:
            parts.append(_scaled_alpha(alpha, low, high))
        elif self.transparent is not None and mode in ("L", "RGB"):
            mode = mode + "A"
            parts.append(np.where((colours == self.transparent).all(-1, keepdims=True), 0, 255).astype(np.uint8))
        data = np.ascontiguousarray(np.concatenate(parts, axis=-1))
        image = Image.frombytes(mode, data.shape[1::-1], data.tobytes())
        return image, int(highest) if known is None else None


def checked_range(pixel_range: Any) -> tuple[float, float] | None:
    """Return LOW and HIGH as numbers.

    Raises:
        ValueError: they are not two finite numbers in ascending order.
    """
    if pixel_range is None:
        return None
    try:
        low, high = (float(value) for value in pixel_range)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(
            "pixel_range must be two numbers, the values of black and of a greater white, as in (0, 4095); got "
            f"{pixel_range!r}"
        )
    return low, high


def deep_array(array: np.ndarray, mode: str) -> DeepPicture:
    """Wrap an array of 16-bit, other integer or real values as a picture without a stated range."""
    return DeepPicture(array.astype(array.dtype.newbyteorder("="), copy=False), mode)


def deep_picture(image: Image.Image, again: Callable[[], Image.Image] | None) -> DeepPicture | None:
    """Return the values of a picture of more than eight bits per channel; None if it has eight.

    Args:
        image: a PIL image, not yet loaded if it comes from a file.
        again: function that opens the picture's file again; None for a picture in memory.

    Raises:
        Refusal: values that Pillow cannot return in full.
    """
    tags = _tags(image)
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return _deep_colour(image, tags, again)
    if image.format not in _FORMATS:
        raise Refusal(
            f"has more than eight bits per channel in the format {image.format}, which are not read: save it as PNG or "
            "TIFF"
        )
    bits = _significant_bits(again, 1) if image.format == "PNG" and again is not None else 0
    values = np.asarray(image)
    if image.format == "PPM" and image.mode == "I":
        values = values.astype(np.uint16)  # Pillow has scaled the file's own maximum to 65,535
    if tags and image.mode == "I" and _first(tags.get(_SAMPLE_FORMAT, 1)) == 1:
        values = values.view(np.uint32)
    deep = deep_array(values, "L")
    if image.format == "TIFF":
        return replace(deep, stated=_tiff_range(tags), is_inverted=tags.get(_PHOTOMETRIC) == 0)
    if image.format == "PNG":
        transparent = image.info.get("transparency")
        return replace(deep, stated=_png_range(deep.values, bits), transparent=transparent)
    return deep


def tiff_bits(image: Image.Image) -> tuple[float, ...]:
    """Return the bits of each channel that a TIFF's header states; empty for other formats."""
    return _numbers(_tags(image).get(_BITS, ()))


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}


def _deep_colour(
    image: Image.Image, tags: Mapping[int, Any], again: Callable[[], Image.Image] | None
) -> DeepPicture | None:
    """Read 16-bit colours, of which Pillow keeps the upper byte, by decoding once for each byte."""
    tiles = getattr(image, "tile", [])
    if again is None or not tiles:
        return None
    _refuse_misread(image, tags, tiles, again)
    name = next((str(tile.args if isinstance(tile.args, str) else tile.args[0]) for tile in tiles if tile.args), "")
    if not re.search(r";16[BLN]$", name):
        return None
    if name == "LA;16B":  # the four bytes of each pixel, as if they were four channels
        high, low = np.split(_read_as(again, "RGBA")[..., [0, 2, 1, 3]], 2, axis=-1)
        mode = "LA"
    else:
        kind, order = re.sub("a;", "A;", name).split(";16")
        other = "B" if order in ("L", "N") else "L"
        high, low = (_read_as(again, f"{kind};16{which}") for which in (order, other))
        mode = name.split(";")[0].removesuffix("X")
    values = high.astype(np.uint16) << 8 | low
    if image.format == "TIFF":
        return DeepPicture(values, mode, _tiff_range(tags))
    n_colours = 1 if mode == "LA" else 3
    stated = _png_range(values[..., :n_colours], _significant_bits(again, n_colours))
    return DeepPicture(values, mode, stated, transparent=image.info.get("transparency"))


def _refuse_misread(
    image: Image.Image, tags: Mapping[int, Any], tiles: Sequence[Any], again: Callable[[], Image.Image]
) -> None:
    """Refuse 16-bit colours whose lower bytes Pillow cannot return, and signed bytes, which it reads as unsigned."""
    advice = "which is not read whole: save it as PNG or TIFF"
    if image.format == "PPM" and any(tile.codec_name == "ppm" and tile.args[-1] == 65535 for tile in tiles):
        raise Refusal(f"has colours of 16 bits in the format PPM, {advice}")
    if image.format == "SGI" and any(tile.codec_name == "SGI16" or tile.args[-1] == 2 for tile in tiles):
        raise Refusal(f"has 16 bits per channel in the format SGI, {advice}")
    if image.format == "JPEG2000" and _jpeg2000_bits(again) == 16:
        raise Refusal(f"has colours of 16 bits in the format JPEG2000, {advice}")
    bits, formats = _numbers(tags.get(_BITS, ())), _numbers(tags.get(_SAMPLE_FORMAT, 1))
    if 16 in bits and tags.get(_PLANAR) == 2:
        raise Refusal(
            "has 16 bits per channel in separate planes, which Pillow misreads: save it with interleaved ones"
        )
    if 8 in bits and {2, 3} & set(formats):
        raise Refusal("has signed values of eight bits, which Pillow reads as unsigned: save it with unsigned ones")


def _jpeg2000_bits(again: Callable[[], Image.Image]) -> int:
    """Return the bits of a JPEG 2000 file's first component, from its SIZ marker (ISO/IEC 15444-1, A.5.1)."""
    with again() as image:
        file = image.fp  # type: ignore[attr-defined]
        file.seek(0)
        head = file.read(65536)
    place = head.find(b"\xff\x4f\xff\x51")
    return (head[place + 42] & 0x7F) + 1 if 0 <= place < len(head) - 42 else 0


def _read_as(again: Callable[[], Image.Image], other: str) -> np.ndarray:
    """Decode a file as if its bytes were arranged as in Pillow's raw mode `other`."""
    with again() as image:
        image.tile = [  # type: ignore[attr-defined]
            tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:]))
            for tile in image.tile  # type: ignore[attr-defined]
        ]
        return np.asarray(image)


def _tiff_range(tags: Mapping[int, Any]) -> tuple[float, float] | None:
    """Return the lowest and highest value that a TIFF states, or the range of fewer than 16 bits."""
    lows = next((_numbers(tags[tag]) for tag in _LOWEST if tag in tags), (0.0,))
    highs = next((_numbers(tags[tag]) for tag in _HIGHEST if tag in tags), ())
    if not highs:
        bits = int(_first(tags.get(_BITS, 16)))
        return (0.0, 2.0**bits - 1) if bits < 16 else None
    low, high = min(lows), max(highs)
    if not low < high:
        raise Refusal(f"states a range of values from {low:g} to {high:g}: give pixel_range=(LOW, HIGH)")
    return low, high


def _png_range(values: np.ndarray, bits: int) -> tuple[float, float] | None:
    """Return the range that a PNG's sBIT chunk implies: 2^bits values for `bits` significant bits; None without one.

    The standard scales them to all 16 bits (section 13.12, Sample depth scaling); a file with unscaled values has none
    above 2^bits - 1, and some that scaling cannot produce.
    """
    if not 0 < bits < 16:
        return FULL_RANGE if bits == 16 else None
    top, step = 2**bits - 1, 2 ** (16 - bits)
    seen = np.flatnonzero(np.bincount(values.ravel(), minlength=65536))
    is_spread = (seen % step == 0) | (np.abs(seen - np.rint(seen // step * FULL_RANGE[1] / top)) <= 1)
    return (0.0, float(top)) if seen[-1] <= top and not is_spread.all() else FULL_RANGE


def _significant_bits(again: Callable[[], Image.Image], n_colours: int) -> int:
    """Return the most significant bits per colour that a PNG's header states; 0 without an sBIT chunk."""
    with again() as image:
        file = image.fp  # type: ignore[attr-defined]
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT":
                return max(file.read(length)[:n_colours], default=0)
            if kind == b"IDAT":
                break
            file.seek(length + 4, 1)
    return 0


def _extremes(values: np.ndarray) -> tuple[float, float]:
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite([lowest, highest]).all():
        raise Refusal(
            f"holds values that are not finite ({np.count_nonzero(~np.isfinite(values)):,} of {values.size:,})"
        )
    return lowest, highest


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 255 (v - low) / (high - low) in bytes."""
    if values.dtype == np.uint16:  # through a table, which is faster than arithmetic on every pixel
        table = np.clip(255 * (np.arange(65536) - low) / (high - low), 0, 255)
        return np.rint(table).astype(np.uint8)[values]
    return np.rint(255 * (values.astype(np.float64) - low) / (high - low)).astype(np.uint8)


def _scaled_alpha(alpha: np.ndarray, low: float, high: float) -> np.ndarray:
    lowest, highest = _extremes(alpha)
    if low != 0 or lowest < 0 or highest > high:
        raise Refusal(
            f"has an alpha channel from {lowest:.6g} to {highest:.6g} beside colours from {low:g} to {high:g}, so that "
            "nothing says what is opaque: save it without alpha"
        )
    return _scaled(alpha, low, high)


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in value) if isinstance(value, (tuple, list)) else (float(value),)


def _first(value: Any) -> float:
    return _numbers(value)[0]
