"""Pictures for tests of the opener: files of any depth, written by hand or by tifffile, and what they should become."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image

from mechvit.data import open_picture

RNG = np.random.default_rng(0)


def seen(picture, **options) -> np.ndarray:
    opened = open_picture(picture, **options)
    assert opened.mode == "RGB"
    assert opened.info == {}
    return np.asarray(opened)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(
    values: np.ndarray, colour: int, *chunks: tuple[bytes, bytes], tail: tuple[bytes, bytes] | None = None
) -> bytes:
    """A PNG of 16 bits, written by hand, with chunks before or behind its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2").reshape(height, -1))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(rows)), *([tail] if tail else []), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def in_bytes(values: np.ndarray, low: float = 0, high: float = 65535) -> np.ndarray:
    """255 (v - low) / (high - low), rounded, in float64."""
    return np.rint(255 * (values.astype(np.float64) - low) / (high - low)).astype(np.uint8)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


def values_16(*shape: int, high: int = 65535) -> np.ndarray:
    values = RNG.integers(0, high + 1, shape, dtype=np.uint16)
    values.flat[0], values.flat[-1] = 0, high
    return values


def of_mode(mode: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    colours = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8))
    if mode in ("LA", "PA"):
        image = colours.convert("RGB").convert(mode[0]).convert(mode)
        image.putalpha(colours.getchannel("A"))
        return image
    return colours if mode == "RGBA" else colours.convert("RGB").convert(mode)
