"""The one opener of pictures: anything that holds one becomes an upright picture in RGB bytes.

Whether a picture comes from a data set, a file named on a command line or a notebook, it is read here, so that it
means the same everywhere:
- EXIF orientation is applied, as by `PIL.ImageOps.exif_transpose`. EXIF that cannot be read is refused.
- Transparency is laid over white, as by the image processors of transformers (`convert_to_rgb`).
- More than eight bits a channel become eight by the range of the values (`bit_depth`), never by cutting them.
- CMYK, YCbCr, HSV, palettes and grey are Pillow's conversions; LAB is refused, which Pillow converts only roughly.
- Of several frames or pages the first is taken.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mechvit.arguments import checked
from mechvit.terminal import printable

from .bit_depth import TWELVE_BITS, DeepPicture, Refusal, checked_range, deep_array, deep_picture

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright; all other values are upright, as in Pillow."""
_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ONE_PICTURE = ("MPO", "PSD")
"""Formats whose further frames are previews or layers of the first."""


@dataclass(frozen=True)
class Decoded:
    """A picture as it was read."""

    rgb: Image.Image
    highest: int | None
    """The highest of 16-bit values whose range nothing stated; None for all other pictures."""
    has_more_frames: bool


@checked
def open_picture(
    picture: Any, *, pixel_range: tuple[float, float] | None = None, name: str | None = None
) -> Image.Image:
    """Read one picture, upright and in RGB bytes.

    Args:
        picture: a path; the bytes of a file; a PIL image; an array [height, width] or [height, width, channels] of
            grey, grey and alpha, RGB or RGBA; or a row of `datasets` (`{"bytes": ..., "path": ...}`).
        pixel_range: the values of black and white, for pictures of more than eight bits a channel. Without it they are
            what the file states (TIFF's SMinSampleValue and SMaxSampleValue, or MinSampleValue and MaxSampleValue;
            PNG's significant bits), or 0 and 65,535 for 16 bits.
        name: what errors call the picture; its path by default.

    Raises:
        ValueError: the picture cannot be read; or its values are real numbers or whole ones of 32 bits, or of 16 bits
            and all below 4,096, and neither the file nor `pixel_range` says what is black and what white.
    """
    name = name or picture_name(picture)
    return open_pictures({name: picture}, pixel_range=pixel_range)[name]


@checked
def open_pictures(
    pictures: Mapping[str, Any], *, pixel_range: tuple[float, float] | None = None
) -> dict[str, Image.Image]:
    """Read pictures that belong together, each as `open_picture` does, by the names that they have in errors.

    16-bit values below 4,096 are taken as they are where another of the pictures has a greater one.

    Raises:
        ValueError: as `open_picture`.
    """
    known = checked_range(pixel_range)
    read = {name: decode(picture, known, name) for name, picture in pictures.items()}
    refuse_unstated({name: found.highest for name, found in read.items()})
    if several := [name for name, found in read.items() if found.has_more_frames]:
        warnings.warn(f"of several frames the first is taken: {printable(_some(several))}", stacklevel=2)
    return {name: found.rgb for name, found in read.items()}


def decode(
    picture: Any, pixel_range: tuple[float, float] | None, name: str | None = None, *, is_draft: bool = False
) -> Decoded:
    """Read one picture of a set.

    Args:
        picture, pixel_range, name: as in `open_picture`.
        is_draft: read a JPEG at an eighth of its size, to see whether it can be read.

    Raises:
        ValueError: the picture cannot be read; names it.
    """
    name = name or picture_name(picture)
    try:
        return _read(picture, pixel_range, is_draft)
    except Refusal as error:
        raise ValueError(f"{name} {error}") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not an image that Pillow reads") from error
    except OSError as error:
        why = f"cannot be read ({error.strerror})" if error.errno else f"cannot be decoded ({error})"
        raise ValueError(f"{name} {why}") from error
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files: SyntaxError, struct.error, ...
        raise ValueError(f"{name} cannot be decoded ({type(error).__name__}: {error})") from error


def refuse_unstated(highest: Mapping[str, int | None]) -> None:
    """Refuse pictures of 16 bits that may well be of 12: none of them has a value above 4,095.

    Args:
        highest: each picture's `Decoded.highest`.

    Raises:
        ValueError: names the first of them.
    """
    unstated = {name: value for name, value in highest.items() if value is not None}
    if not unstated or max(unstated.values()) > TWELVE_BITS:
        return
    first, others = next(iter(unstated)), len(unstated) - 1
    raise ValueError(
        f"{first}{f' and {others:,} more' if others else ''}: 16-bit values of at most {max(unstated.values()):,}, and "
        "nothing says which is white; out of 65,535 that is nearly black. Say what they are with "
        "pixel_range=(LOW, HIGH), of load_images or open_picture (--pixel-range LOW HIGH), as in 0 4095"
    )


def picture_name(picture: Any) -> str:
    """Return what errors call a picture: its path, where it has one."""
    if isinstance(picture, Mapping):
        picture = picture.get("path")
    path = getattr(picture, "filename", picture)
    return path_text(path) if isinstance(path, (str, os.PathLike)) and os.fspath(path) else "the picture"


def path_text(path: str | os.PathLike[str]) -> str:
    r"""Return a path as text that can be printed, with bytes that are not UTF-8 as `\xe9`."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def _read(picture: Any, pixel_range: tuple[float, float] | None, is_draft: bool) -> Decoded:
    if isinstance(picture, Mapping):
        data, path = picture.get("bytes"), picture.get("path")
        picture = path if data is None else data
    if picture is None:
        raise Refusal("is missing (null)")
    if isinstance(picture, np.ndarray):
        return _from_array(picture, pixel_range)
    if isinstance(picture, Image.Image):
        return _from_image(picture, pixel_range, _reopener(picture))
    if not isinstance(picture, (bytes, bytearray, memoryview, str, os.PathLike)):
        raise Refusal(
            "must be a path, a file's bytes, a PIL image, a numpy array or a row of datasets; got "
            f"{type(picture).__name__}"
        )
    again = partial(_opened, picture if isinstance(picture, (str, os.PathLike)) else bytes(picture))
    with again() as opened:
        if is_draft:
            opened.draft(None, (32, 32))
        several = opened.format not in _ONE_PICTURE and getattr(opened, "is_animated", False)
        found = _from_image(opened, pixel_range, again)
        return Decoded(found.rgb, found.highest, several)


def _opened(source: str | os.PathLike[str] | bytes) -> Image.Image:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


def _from_image(
    image: Image.Image, pixel_range: tuple[float, float] | None, again: Callable[[], Image.Image] | None
) -> Decoded:
    if 0 in image.size:
        raise Refusal(f"has no pixels ({image.width} x {image.height})")
    deep = deep_picture(image, again)
    image.load()  # a PNG's EXIF may stand behind its pixels
    plain, highest = (image, None) if deep is None else deep.in_bytes(pixel_range)
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception as error:
        raise Refusal(f"has EXIF that cannot be read ({error}), so that it is not known which side is up") from error
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return Decoded(_in_rgb(plain if turn is None else plain.transpose(turn)), highest, False)


def _from_array(array: np.ndarray, pixel_range: tuple[float, float] | None) -> Decoded:
    n_channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if n_channels not in _CHANNELS or array.size == 0 or array.dtype.kind not in "buif":
        raise Refusal(
            "must be an array of numbers [height, width] or [height, width, channels] with 1 to 4 channels, the last "
            f"of 2 or 4 being alpha; got {array.dtype} {list(array.shape)}"
        )
    squeezed = array[..., 0] if array.ndim == 3 and n_channels == 1 else array
    if array.dtype == bool:
        squeezed = squeezed * np.uint8(255)
    if squeezed.dtype == np.uint8:
        return Decoded(_in_rgb(Image.fromarray(np.ascontiguousarray(squeezed))), None, False)
    deep: DeepPicture = deep_array(squeezed, _CHANNELS[n_channels])
    plain, highest = deep.in_bytes(pixel_range)
    return Decoded(_in_rgb(plain), highest, False)


def _in_rgb(image: Image.Image) -> Image.Image:
    """Return bytes of any mode in RGB, laid over white where they are transparent, and without any information."""
    if image.mode == "RGB" and not image.info and type(image) is Image.Image:
        return image
    if image.mode == "LAB":
        raise Refusal("is in the colour space LAB, which Pillow converts only roughly: save it in RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode in ("LA", "PA", "RGBA") or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    rgb = image.convert("RGB")  # a copy, also of RGB
    rgb.info = {}
    return rgb


def _reopener(image: Image.Image) -> Callable[[], Image.Image] | None:
    """Return what opens a PIL image's file once more, as long as the image is not loaded; None for all others."""
    file = getattr(image, "fp", None)
    if file is None or not getattr(image, "tile", None):
        return None

    def again() -> Image.Image:
        place = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(place)
        opened = _opened(data)
        if frame := image.tell():
            opened.seek(frame)
        return opened

    return again


def _some(items: Iterable[str], count: int = 5) -> str:
    named = list(items)
    return "; ".join(named[:count]) + ("; ..." if len(named) > count else "")
