"""The one opener of pictures: what holds a picture, what does not, and that nothing else opens one."""

from __future__ import annotations

import ast
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import RNG, png, saved, seen, values_16
from PIL import Image, ImageOps
from transformers.image_transforms import convert_to_rgb

from mechvit.data import open_picture, unit_pixels

ROOT = Path(__file__).parents[3]


def test_every_holder_gives_the_same_pixels(tmp_path):
    pixels = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    data, path = saved(Image.fromarray(pixels)), tmp_path / "a.png"
    path.write_bytes(data)
    opened = Image.open(path)
    holders = [
        path,
        str(path),
        data,
        bytearray(data),
        memoryview(data),
        opened,
        Image.fromarray(pixels),
        pixels,
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(path)},
        {"path": str(path)},
        {"bytes": data, "path": "elsewhere.png"},
    ]
    with opened:
        for holder in holders:
            np.testing.assert_array_equal(seen(holder), pixels)


def test_a_picture_is_not_changed_by_opening_it():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(saved(Image.new("RGBA", (4, 2), (10, 20, 30, 40)), exif=exif)))
    once = seen(image)
    assert (image.mode, image.size) == ("RGBA", (4, 2))
    np.testing.assert_array_equal(seen(image), once)
    np.testing.assert_array_equal(seen(open_picture(image)), once)
    data = png(values_16(3, 3, 3), 2)
    deep = Image.open(io.BytesIO(data))
    seen(deep)
    np.testing.assert_array_equal(np.asarray(deep), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, r"is missing \(null\)"),
        ({"bytes": None, "path": None}, r"is missing \(null\)"),
        (b"", "is not an image"),
        (b"no picture", "is not an image"),
        ("/nowhere/a.png", r"/nowhere/a.png cannot be read \(No such file or directory\)"),
        ("/", "cannot be read"),
        (3, "must be a path, .* got int"),
        ([[1, 2]], "must be a path, .* got list"),
        (np.zeros((3, 4, 5), np.uint8), r"got uint8 \[3, 4, 5\]"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \[0, 4, 3\]"),
        (np.zeros(4, np.uint8), r"got uint8 \[4\]"),
        (np.zeros((2, 2), complex), "got complex128"),
        (np.array([["a"]], object), "got object"),
        (Image.new("RGB", (0, 3)), r"has no pixels \(0 x 3\)"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(picture, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_picture(picture)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP"])
def test_truncated_pictures_are_named(kind, tmp_path):
    data = saved(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    path = tmp_path / f"short.{kind.lower()}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=rf"short.{kind.lower()} (cannot be decoded|is not an image)"):
        open_picture(path)


def test_decompression_bombs_are_named(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("L", (50, 50)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"bomb.png cannot be decoded \(DecompressionBombError"):
        open_picture(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "phone.png"
    Image.new("RGB", (4, 2)).save(path)
    data = path.read_bytes()
    for exif in (b"garbage that is no EXIF", b"II", b"MM\0*\0\0\0\xff"):
        chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
        path.write_bytes(data[:33] + chunk + data[33:])
        try:
            upright = ImageOps.exif_transpose(Image.open(path))
        except Exception:
            with pytest.raises(ValueError, match=r"phone.png has EXIF that cannot be read"):
                open_picture(path)
        else:
            np.testing.assert_array_equal(seen(path), np.asarray(upright))


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "WEBP", "PPM", "BMP", "JPEG2000", "TGA"]))
def test_damaged_files_are_read_as_pillow_does_or_refused_as_values(data, kind):
    whole = bytearray(saved(Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)), kind))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=4)):
        whole[place] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = "the picture "
        try:
            assert open_picture(bytes(whole)).mode == "RGB"
        except ValueError as error:
            said = str(error)
        assert said.startswith("the picture ")


def test_file_names_that_are_not_utf8_are_escaped():
    with pytest.raises(ValueError, match=r"caf\\xe9.png cannot be read") as caught:
        open_picture(b"/nowhere/caf\xe9.png".decode("utf-8", "surrogateescape"))
    str(caught.value).encode()


def test_unit_pixels_opens_what_it_is_given(tiny_processor, tmp_path):
    pixels = RNG.integers(0, 256, (32, 32, 4), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    expected = convert_to_rgb(Image.fromarray(pixels), return_numpy=True).transpose(2, 0, 1)
    for picture in (path, pixels, Image.fromarray(pixels)):
        np.testing.assert_array_equal(unit_pixels([picture], tiny_processor)[0], expected)


# one opener


def test_there_is_one_opener():
    """No other `Image.open`, conversion to RGB or decoding column; the JPEG corruption reads what it wrote."""
    allowed = {
        f"mechvit/data/{name}.py" for name in ("sources/picture", "sources/loaded_picture", "corruptions/digital")
    }
    found = []
    for path in [*ROOT.glob("mechvit/**/*.py"), *ROOT.glob("scripts/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _opens(node):
                found.append((path.relative_to(ROOT).as_posix(), ast.unparse(node)))
    assert {path for path, _ in found} == allowed
    assert [call for path, call in found if "digital" in path] == ["Image.open(file)"]


def _opens(call: ast.Call) -> bool:
    name, given = (
        ast.unparse(call.func),
        [ast.unparse(part) for part in (*call.args, *(k.value for k in call.keywords))],
    )
    if name.endswith("Image") and "datasets" in name:
        return not any(k.arg == "decode" and ast.unparse(k.value) == "False" for k in call.keywords)
    readers = ("Image.open", "imread", "load_image", "exif_transpose", "open_image", "decode_example", "convert_to_rgb")
    return name.endswith(readers) or (name.endswith(".convert") and any("RGB" in part for part in given))
