"""The one reader of pictures: any supported form becomes an upright RGB picture in bytes.

Pictures of data sets, files on a command line and notebooks are all read here, so that they mean the same everywhere:
- EXIF orientation is applied, as by `PIL.ImageOps.exif_transpose`. EXIF that cannot be read is refused.
- Transparency is laid over white, as by the image processors of transformers (`convert_to_rgb`).
- More than eight bits per channel become eight by the range of the values (`bit_depth`), never by cutting them.
- CMYK, YCbCr, HSV, palettes and grey are Pillow's conversions; LAB is refused, which Pillow converts only roughly.
- Of several frames or pages the first is taken.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mechvit.arguments import checked
from mechvit.terminal import printable

from .bit_depth import EIGHT_BITS, TWELVE_BITS, DeepPicture, Refusal, checked_range, deep_array, deep_picture
from .loaded_picture import DEEP_FORMATS, deep_as_loaded, is_loaded_file, open_file, reopener

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that makes the picture upright; other values are upright, as in Pillow."""
_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ONE_PICTURE = ("MPO", "PSD")
"""Formats whose further frames are previews or layers of the first."""


@dataclass(frozen=True)
class Decoded:
    """A picture as read."""

    rgb: Image.Image
    highest: int | None
    """Highest of 16-bit values without a stated range; None for all other pictures."""
    is_deep: bool
    """Whether it has more than eight bits per channel, so that its range is open."""
    has_more_frames: bool = False


@checked
def open_picture(
    picture: Any, *, pixel_range: tuple[float, float] | None = None, name: str | None = None
) -> Image.Image:
    """Read one picture, upright and in RGB bytes.

    Args:
        picture: a path; the bytes of a file; a PIL image; an array [height, width] or [height, width, channels] of
            grey, grey and alpha, RGB or RGBA; or a row of `datasets` (`{"bytes": ..., "path": ...}`).
        pixel_range: the values of black and white, for pictures of more than eight bits per channel. Without it they
            are what the file states (TIFF's SMinSampleValue and SMaxSampleValue, or MinSampleValue and MaxSampleValue;
            PNG's significant bits), or 0 and 65,535 for 16 bits. Of eight bits they are 0 and 255.
        name: what errors call the picture; its path by default.

    Raises:
        ValueError: the picture cannot be read; or its values are real numbers or whole ones of 32 bits, or of 16 bits
            and all below 4,096, and neither the file nor `pixel_range` says what is black and what white; or it has
            eight bits per channel, and `pixel_range` is another than theirs; or Pillow has loaded it from a file of
            16-bit colours, of which it keeps the upper bytes, and the file cannot be read again; or pixels are masked.
    """
    name = name or picture_name(picture)
    return open_pictures({name: picture}, pixel_range=pixel_range)[name]


@checked
def open_pictures(
    pictures: Mapping[str, Any], *, pixel_range: tuple[float, float] | None = None
) -> dict[str, Image.Image]:
    """Read pictures that belong together, each as `open_picture` does; keys are their names in errors.

    16-bit values below 4,096 are accepted where another of the pictures has a greater one. Where `pixel_range` applies
    to some of them, a warning names those of eight bits per channel.

    Raises:
        ValueError: as `open_picture`.
    """
    known = checked_range(pixel_range)
    read = {name: decode(picture, known, name) for name, picture in pictures.items()}
    check_ranges(read, known)
    if several := [name for name, found in read.items() if found.has_more_frames]:
        warnings.warn(f"the first of several frames is used: {printable(_some(several))}", stacklevel=2)
    return {name: found.rgb for name, found in read.items()}


def decode(
    picture: Any, pixel_range: tuple[float, float] | None, name: str | None = None, *, is_draft: bool = False
) -> Decoded:
    """Read one picture of a set.

    Args:
        picture, pixel_range, name: as in `open_picture`.
        is_draft: read a JPEG at an eighth of its size, to check that it can be read.

    Raises:
        ValueError: the picture cannot be read; names it.
    """
    name = printable(name or picture_name(picture))
    try:
        return _read(picture, pixel_range, is_draft)
    except Refusal as error:
        raise ValueError(f"{name} {printable(error)}") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not an image that Pillow reads, such as a PNG or JPEG file") from error
    except OSError as error:
        why = f"cannot be read ({error.strerror})" if error.errno else f"cannot be decoded ({error})"
        raise ValueError(f"{name} {printable(why)}: it must be an image file, such as a PNG or JPEG") from error
    except Exception as error:  # Pillow's decoders raise SyntaxError, struct.error and many others
        raise ValueError(f"{name} cannot be decoded ({type(error).__name__}: {printable(error)})") from error


def check_ranges(read: Mapping[str, Decoded], pixel_range: tuple[float, float] | None) -> None:
    """Refuse pictures that belong together (name -> picture) if their black and white are uncertain.

    Raises:
        ValueError: as `refuse_unstated` and `refuse_needless`.
    """
    refuse_unstated({name: found.highest for name, found in read.items()})
    refuse_needless([name for name, found in read.items() if not found.is_deep], len(read), pixel_range)


def refuse_unstated(highest: Mapping[str, int | None]) -> None:
    """Refuse 16-bit pictures that may well use only 12 bits: none of them has a value above 4,095.

    Args:
        highest: each picture's `Decoded.highest`.

    Raises:
        ValueError: names the first of them.
    """
    unstated = {name: value for name, value in highest.items() if value is not None}
    if not unstated or max(unstated.values()) > TWELVE_BITS:
        return
    raise ValueError(
        f"{_first(list(unstated))}: 16-bit values of at most {max(unstated.values()):,}, and "
        "nothing says which is white; out of 65,535 that is nearly black. Say what they are with "
        "pixel_range=(LOW, HIGH), as in 0 and 4095"
    )


def refuse_needless(plain: Sequence[str], count: int, pixel_range: tuple[float, float] | None) -> None:
    """Refuse a range of values for pictures that all have eight bits per channel, whose black and white are 0 and 255.

    If it applies to some, a warning names those of eight bits.

    Args:
        plain: names of the pictures of eight bits.
        count: number of all pictures.
        pixel_range: as in `open_picture`.

    Raises:
        ValueError: names the first of them.
    """
    if pixel_range in (None, EIGHT_BITS) or not plain:
        return
    low, high = pixel_range
    said = f"eight bits per channel are black at 0 and white at 255, not at {low:g} and {high:g} as pixel_range has it"
    if len(plain) == count:
        raise ValueError(f"{_first(plain)}: {said}: leave it out, or give pictures of more bits")
    warnings.warn(
        f"{len(plain):,} of {count:,} pictures keep their values: {said} for the others: {printable(_some(plain))}",
        stacklevel=4,
    )


def picture_name(picture: Any) -> str:
    """Return a picture's name for errors: its path, where it has one."""
    if isinstance(picture, Mapping):
        picture = picture.get("path")
    path = getattr(picture, "filename", picture)
    return path_text(path) if isinstance(path, (str, os.PathLike)) and os.fspath(path) else "the picture"


def path_text(path: str | os.PathLike[str]) -> str:
    r"""Return a path as printable text, with bytes that are not UTF-8 as `\xe9`."""
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
        return _from_pil(picture, pixel_range)
    if not isinstance(picture, (bytes, bytearray, memoryview, str, os.PathLike)):
        raise Refusal(
            "must be a path, a file's bytes, a PIL image, a numpy array or a row of datasets; got "
            f"{type(picture).__name__}"
        )
    again = partial(open_file, picture if isinstance(picture, (str, os.PathLike)) else bytes(picture))
    with again() as opened:
        if is_draft:
            opened.draft(None, (32, 32))
        several = opened.format not in _ONE_PICTURE and getattr(opened, "is_animated", False)
        found = _from_image(opened, pixel_range, again)
        return replace(found, has_more_frames=several)


def _from_pil(picture: Image.Image, pixel_range: tuple[float, float] | None) -> Decoded:
    """Read a PIL image, and leave it unloaded where a second reading would see less of it."""
    again = reopener(picture)
    if again is None or picture.format not in DEEP_FORMATS:
        return _from_image(picture, pixel_range, again)
    with again() as opened:
        return _from_image(opened if opened.size == picture.size else picture, pixel_range, again)


def _from_image(
    image: Image.Image, pixel_range: tuple[float, float] | None, again: Callable[[], Image.Image] | None
) -> Decoded:
    if 0 in image.size:
        raise Refusal(f"has no pixels ({image.width} x {image.height})")
    deep = deep_as_loaded(image) if is_loaded_file(image) else deep_picture(image, again)
    image.load()  # a PNG's EXIF may follow its pixels
    plain, highest = (image, None) if deep is None else deep.in_bytes(pixel_range)
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception as error:
        raise Refusal(f"has EXIF that cannot be read ({error}), so that it is not known which side is up") from error
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return Decoded(_in_rgb(plain if turn is None else plain.transpose(turn)), highest, deep is not None)


def _from_array(array: np.ndarray, pixel_range: tuple[float, float] | None) -> Decoded:
    n_channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if n_channels not in _CHANNELS or array.size == 0 or array.dtype.kind not in "buif":
        raise Refusal(
            "must be an array of numbers [height, width] or [height, width, channels] with 1 to 4 channels, the last "
            f"of 2 or 4 being alpha; got {array.dtype} {list(array.shape)}"
        )
    array = _unmasked(array)
    squeezed = array[..., 0] if array.ndim == 3 and n_channels == 1 else array
    if array.dtype == bool:
        squeezed = squeezed * np.uint8(255)
    if squeezed.dtype == np.uint8:
        return Decoded(_in_rgb(Image.fromarray(np.ascontiguousarray(squeezed))), None, is_deep=False)
    deep: DeepPicture = deep_array(squeezed, _CHANNELS[n_channels])
    plain, highest = deep.in_bytes(pixel_range)
    return Decoded(_in_rgb(plain), highest, is_deep=True)


def _unmasked(array: np.ndarray) -> np.ndarray:
    """Return a masked array as a plain one, if no pixel of it is masked."""
    masked = np.ma.getmaskarray(array).reshape(*array.shape[:2], -1).any(-1)
    if masked.any():
        count = f"{masked.sum():,} of {masked.size:,}"
        raise Refusal(f"is an array with {count} pixels masked: give them a value, as in picture.filled(0)")
    return np.asarray(array)


def _in_rgb(image: Image.Image) -> Image.Image:
    """Return bytes of any mode in RGB, laid over white where they are transparent, without metadata."""
    if image.mode == "RGB" and not image.info and type(image) is Image.Image:
        return image
    if image.mode == "LAB":
        raise Refusal("is in the colour space LAB, which Pillow converts only roughly: save it in RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode in ("LA", "PA", "RGBA") or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    rgb = image.convert("RGB")  # a copy, even of RGB
    rgb.info = {}
    return rgb


def _first(names: Sequence[str]) -> str:
    others = len(names) - 1
    return f"{printable(names[0])}{f' and {others:,} more' if others else ''}"


def _some(items: Iterable[str], count: int = 5) -> str:
    named = list(items)
    return "; ".join(named[:count]) + ("; ..." if len(named) > count else "")
