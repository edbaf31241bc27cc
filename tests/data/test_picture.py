"""The one opener of pictures, against Pillow, numpy, tifffile and transformers."""

from __future__ import annotations

import ast
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features
from transformers.image_transforms import convert_to_rgb

from mechvit.data import open_picture, open_pictures, unit_pixels

ROOT = Path(__file__).parents[2]
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


# bits and ranges


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["array", "PNG", "TIFF", "deflated TIFF", "PIL", "JPEG2000", "PGM"])
def test_sixteen_bits_of_grey_are_scaled_by_65535(kind, order):
    values = values_16(9, 7)
    ordered = values.astype(f"{order}u2")
    picture = {
        "array": lambda: ordered,
        "PNG": lambda: png(values, 0),
        "TIFF": lambda: tiff(ordered, byteorder=order),
        "deflated TIFF": lambda: tiff(ordered, byteorder=order, compression="zlib"),
        "PIL": lambda: Image.frombytes("I;16" if order == "<" else "I;16B", (7, 9), ordered.tobytes()),
        "JPEG2000": lambda: saved(Image.fromarray(values), "JPEG2000", irreversible=False),
        "PGM": lambda: saved(Image.fromarray(values), "PPM"),
    }[kind]()
    np.testing.assert_array_equal(seen(picture), grey(in_bytes(values)))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_of_colour_are_read_whole(channels):
    """Pillow keeps the upper byte, which is not the nearest one; here all 16 bits count, in PNG, TIFF and arrays."""
    values = values_16(6, 5, channels)
    if channels in (2, 4):
        values[..., -1] = 65535
    expected = in_bytes(values[..., :3] if channels > 2 else np.repeat(values[..., :1], 3, -1))
    np.testing.assert_array_equal(seen(values), expected)
    np.testing.assert_array_equal(seen(png(values, {2: 4, 3: 2, 4: 6}[channels])), expected)
    if channels > 2:
        extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        for order in "<>":
            for compression in (None, "zlib"):
                data = tiff(
                    values, photometric="rgb", byteorder=order, compression=compression, rowsperstrip=2, **extra
                )
                np.testing.assert_array_equal(seen(data), expected)
                np.testing.assert_array_equal(seen(Image.open(io.BytesIO(data))), expected)


def test_twelve_bits_of_colour_are_not_nearly_black():
    values = values_16(6, 5, 3, high=4095)
    for picture in (values, png(values, 2), tiff(values, photometric="rgb")):
        with pytest.raises(ValueError, match=r"at most 4,095.*--pixel-range LOW HIGH\), as in 0 4095"):
            open_picture(picture)
        np.testing.assert_array_equal(seen(picture, pixel_range=(0, 4095)), in_bytes(values, 0, 4095))


def test_alpha_of_sixteen_bits_is_laid_over_white():
    values = values_16(6, 5, 4)
    colour, alpha = values[..., :3] / 65535, values[..., 3:] / 65535
    expected = 255 * (alpha * colour + 1 - alpha)
    for picture in (values, png(values, 6), tiff(values, photometric="rgb", extrasamples=["unassalpha"])):
        assert np.abs(seen(picture) - expected).max() <= 1.5  # rounded to bytes before it is laid over white
    premultiplied = np.rint(values * np.concatenate([alpha, alpha, alpha, np.ones_like(alpha)], -1)).astype(np.uint16)
    data = tiff(premultiplied, photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(seen(data).astype(int) - expected).max() <= 2


def test_transparent_values_of_sixteen_bits_are_white():
    values = values_16(4, 4)
    expected = np.where(values == values[1, 2], 255, in_bytes(values))
    data = png(values, 0, (b"tRNS", struct.pack(">H", values[1, 2])))
    np.testing.assert_array_equal(seen(data), grey(expected))


@pytest.mark.parametrize(
    ("tags", "low", "high"),
    [
        ([(280, 3, 1, 0, True), (281, 3, 1, 4095, True)], 0, 4095),
        ([(281, 3, 1, 16383, True)], 0, 16383),
        ([(340, 12, 1, -0.0, True), (341, 12, 1, 5000.0, True)], 0, 5000),
        ([(281, 3, 1, 65535, True)], 0, 65535),
    ],
)
def test_tiff_states_its_range(tags, low, high):
    values = values_16(5, 4, high=min(high, 4000))
    np.testing.assert_array_equal(seen(tiff(values, extratags=tags)), grey(in_bytes(values, low, high)))


def test_a_stated_range_that_the_values_leave_is_refused():
    values = values_16(5, 4, high=4000)
    with pytest.raises(ValueError, match=r"values from 0 to 4000, outside the 0 to 1023 that the file states"):
        open_picture(tiff(values, extratags=[(281, 3, 1, 1023, True)]))
    np.testing.assert_array_equal(
        seen(tiff(values, extratags=[(281, 3, 1, 1023, True)]), pixel_range=(0, 4095)), grey(in_bytes(values, 0, 4095))
    )
    with pytest.raises(ValueError, match=r"outside the 0 to 1023 that pixel_range gives"):
        open_picture(values, pixel_range=(0, 1023))


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint32, np.int16])
def test_real_and_wide_numbers_are_refused_with_their_range_or_scaled_by_a_stated_one(dtype):
    is_real = np.dtype(dtype).kind == "f"
    values = (RNG.random((6, 5)) if is_real else RNG.integers(0, 30000, (6, 5))).astype(dtype)
    low, high = (0, 1) if is_real else (0, 32767)
    for picture in (tiff(values), values):
        with pytest.raises(
            ValueError, match=rf"values from {float(values.min()):.6g} to {float(values.max()):.6g} and"
        ):
            open_picture(picture)
        np.testing.assert_array_equal(seen(picture, pixel_range=(low, high)), grey(in_bytes(values, low, high)))
    stated = tiff(values, extratags=[(340, 12, 1, float(low), True), (341, 12, 1, float(high), True)])
    np.testing.assert_array_equal(seen(stated), grey(in_bytes(values, low, high)))


def test_whole_numbers_beyond_31_bits_keep_their_sign():
    values = np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32)
    np.testing.assert_array_equal(seen(tiff(values), pixel_range=(0, 2**32 - 1)), grey(in_bytes(values, 0, 2**32 - 1)))


def test_numbers_that_are_not_finite_are_refused():
    values = np.array([[0, np.nan, 1, np.inf]], np.float32)
    for picture in (values, tiff(values)):
        with pytest.raises(ValueError, match=r"not finite \(2 of 4\)"):
            open_picture(picture, pixel_range=(0, 1))


def test_a_tiff_whose_lowest_value_is_white_is_inverted():
    values = values_16(5, 4)
    np.testing.assert_array_equal(seen(tiff(values, photometric="miniswhite")), grey(255 - in_bytes(values)))
    eight = RNG.integers(0, 256, (5, 4), dtype=np.uint8)
    np.testing.assert_array_equal(seen(tiff(eight, photometric="miniswhite")), grey(255 - eight))


def test_a_png_states_its_significant_bits():
    """Spread over 16 bits, as the standard asks; or left as they are, which values that spreading cannot give show."""
    twelve = values_16(8, 8, high=4095)
    spread = np.rint(twelve * (65535 / 4095)).astype(np.uint16)
    for values in (spread, twelve << 4, twelve << 4 | twelve >> 8):
        np.testing.assert_array_equal(seen(png(values, 0, (b"sBIT", b"\x0c"))), grey(in_bytes(values)))
    np.testing.assert_array_equal(seen(png(twelve, 0, (b"sBIT", b"\x0c"))), grey(in_bytes(twelve, 0, 4095)))
    dark = (twelve >> 5) << 4  # spread, and below 4,096
    np.testing.assert_array_equal(seen(png(dark, 0, (b"sBIT", b"\x0c"))), grey(in_bytes(dark)))
    colour = values_16(8, 8, 3, high=4095)
    np.testing.assert_array_equal(seen(png(colour, 2, (b"sBIT", b"\x0c" * 3))), in_bytes(colour, 0, 4095))
    np.testing.assert_array_equal(seen(png(twelve, 0, (b"sBIT", b"\x10"))), grey(in_bytes(twelve)))
    lazy = Image.open(io.BytesIO(png(twelve, 0, (b"sBIT", b"\x0c"))))
    np.testing.assert_array_equal(seen(lazy), grey(in_bytes(twelve, 0, 4095)))


def test_twelve_bits_in_a_set_are_told_by_the_highest_value_of_all():
    dark, light = values_16(4, 4, high=4095), values_16(4, 4, high=4096)
    with pytest.raises(ValueError, match=r"^a and 1 more: 16-bit values of at most 4,095"):
        open_pictures({"a": dark, "b": dark // 2})
    opened = open_pictures({"a": dark, "b": light})
    np.testing.assert_array_equal(np.asarray(opened["a"]), grey(in_bytes(dark)))
    eight = RNG.integers(0, 256, (4, 4), dtype=np.uint8)
    np.testing.assert_array_equal(seen(eight, pixel_range=(0, 4095)), grey(eight))  # bytes need no range


@pytest.mark.parametrize("bad", [(1, 1), (4095, 0), (0, float("inf")), (0,), "ab", 5, (float("nan"), 1)])
def test_a_range_must_be_two_ascending_numbers(bad):
    with pytest.raises(ValueError, match=r"pixel_range \(--pixel-range LOW HIGH\) must be two numbers"):
        open_picture(np.zeros((2, 2), np.uint16), pixel_range=bad)


@pytest.mark.parametrize("magic", ["SGI", "FITS", "PPM", "JPEG2000"])
def test_other_formats_of_sixteen_bits_are_refused_not_cut(magic):
    body = values_16(2, 2, 3, high=4095).astype(">u2").tobytes()
    cards = ("SIMPLE  =  T", "BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 2", "NAXIS2  = 3", "END")
    header = b"".join(f"{card:80}".encode() for card in cards)
    eight = saved(Image.new("RGB", (2, 2)), "JPEG2000")
    data = {
        "SGI": struct.pack(">HBBHHHHll84sl404x", 474, 0, 2, 3, 2, 2, 3, 0, 4095, b"", 0) + body,
        "FITS": header.ljust(2880) + body.ljust(2880, b"\0"),
        "PPM": b"P6 2 2 65535\n" + body,
        "JPEG2000": eight.replace(b"\x00\x03\x07\x01\x01\x07\x01\x01\x07", b"\x00\x03\x0f\x01\x01\x0f\x01\x01\x0f"),
    }[magic]
    with pytest.raises(ValueError, match=magic):
        open_picture(data)


def test_planes_and_signed_bytes_that_pillow_misreads_are_refused():
    values = values_16(3, 4, 5)
    with pytest.raises(ValueError, match="separate planes"):
        open_picture(tiff(values, photometric="rgb", planarconfig="separate"))
    with pytest.raises(ValueError, match="separate planes"):
        open_picture(tiff(values, photometric="rgb", planarconfig="separate", compression="zlib"))
    eight = (values >> 8).astype(np.uint8)
    np.testing.assert_array_equal(
        seen(tiff(eight, photometric="rgb", planarconfig="separate")), eight.transpose(1, 2, 0)
    )
    with pytest.raises(ValueError, match="signed values of eight bits"):
        open_picture(tiff(np.array([[-5, 5]], np.int8)))


# modes and transparency


MODES = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")


def of_mode(mode: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    colours = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8))
    if mode in ("LA", "PA"):
        image = colours.convert("RGB").convert(mode[0]).convert(mode)
        image.putalpha(colours.getchannel("A"))
        return image
    return colours if mode == "RGBA" else colours.convert("RGB").convert(mode)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    mode=st.sampled_from(MODES),
    width=st.integers(1, 20),
    height=st.integers(1, 20),
    orientation=st.integers(0, 9),
    kind=st.sampled_from(["memory", "PNG", "TIFF", "WEBP", "JPEG", "path"]),
    key=st.none() | st.integers(0, 255),
    seed=st.integers(0, 2**32),
)
def test_pictures_of_any_mode_are_what_pillow_and_transformers_make(
    tmp_path_factory, mode, width, height, orientation, kind, key, seed
):
    """Upright as `exif_transpose`, over white as `convert_to_rgb`; bytes equal, however the picture is handed over."""
    image = of_mode(mode, (width, height), np.random.default_rng(seed))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if key is not None and mode in ("L", "P") and kind in ("memory", "PNG"):
        image.info["transparency"] = key % (256 if mode == "L" else len(image.getpalette() or [0, 0, 0]) // 3)
    if kind == "memory":
        image.info["exif"] = exif.tobytes()
        picture = image
    else:
        image = image if kind not in ("WEBP", "JPEG") else image.convert("RGB")
        writable = {"PNG": ("1", "L", "P", "LA", "RGB", "RGBA"), "path": ("1", "L", "P", "LA", "RGB", "RGBA")}
        image = image if image.mode in writable.get(kind, (image.mode,)) and image.mode not in ("PA", "HSV") else image.convert("RGBA")  # fmt: skip  # noqa: E501
        picture = saved(image, "PNG" if kind == "path" else kind, exif=exif)
    reference = image if kind == "memory" else Image.open(io.BytesIO(picture))
    if kind == "path":
        path = tmp_path_factory.mktemp("pictures") / "picture.png"
        path.write_bytes(picture)
        picture = path
    expected = convert_to_rgb(ImageOps.exif_transpose(reference), return_numpy=True)
    np.testing.assert_array_equal(seen(picture), expected)


@settings(max_examples=150, deadline=None)
@given(
    bits=st.integers(1, 16),
    channels=st.sampled_from([1, 3]),
    width=st.integers(1, 9),
    height=st.integers(1, 9),
    orientation=st.integers(1, 8),
    kind=st.sampled_from(["array", "PNG", "TIFF"]),
    is_stated=st.booleans(),
    order=st.sampled_from("<>"),
    seed=st.integers(0, 2**32),
)
def test_pictures_of_any_depth_are_scaled_by_their_range_or_refused(
    bits, channels, width, height, orientation, kind, is_stated, order, seed
):
    top = 2**bits - 1
    shape = (height, width, 3) if channels == 3 else (height, width)
    values = np.random.default_rng(seed).integers(0, top + 1, shape, dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    tags = [(274, 3, 1, orientation, True)] + ([(281, 3, 1, top, True)] if is_stated else [])
    picture = {
        "array": lambda: values.astype(f"{order}u2"),
        "PNG": lambda: png(values, 0 if channels == 1 else 2, tail=(b"eXIf", exif.tobytes()[6:])),
        "TIFF": lambda: tiff(
            values.astype(f"{order}u2"), byteorder=order, extratags=tags,
            photometric="minisblack" if channels == 1 else "rgb",
        ),
    }[kind]()  # fmt: skip
    high = top if is_stated and kind == "TIFF" else 65535
    given_range = {"pixel_range": (0, top)} if is_stated and kind != "TIFF" else {}
    if not is_stated and values.max() <= 4095:
        with pytest.raises(ValueError, match="16-bit values of at most"):
            open_picture(picture)
        return
    scaled = in_bytes(values, 0, given_range.get("pixel_range", (0, high))[1])
    upright = Image.fromarray(scaled if channels == 3 else grey(scaled))
    if kind != "array":
        upright.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(seen(picture, **given_range), np.asarray(ImageOps.exif_transpose(upright)))


def test_premultiplied_alpha_is_divided_first():
    straight = Image.fromarray(RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8))
    image = straight.convert("RGBa")
    np.testing.assert_array_equal(seen(image), convert_to_rgb(image.convert("RGBA"), return_numpy=True))
    faint = straight.convert("LA").convert("La")
    np.testing.assert_array_equal(seen(faint), convert_to_rgb(faint.convert("LA"), return_numpy=True))


def test_lab_is_refused_which_pillow_converts_only_roughly():
    with pytest.raises(ValueError, match="LAB"):
        open_picture(Image.new("LAB", (2, 2)))


def test_gif_with_transparency_and_frames_is_its_first_over_white():
    frames = [Image.fromarray(RNG.integers(0, 256, (6, 6, 4), dtype=np.uint8)) for _ in range(3)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        expected = convert_to_rgb(Image.open(io.BytesIO(data)), return_numpy=True)
        with pytest.warns(UserWarning, match="of several frames the first is taken: the picture"):
            got = seen(data)
        np.testing.assert_array_equal(got, expected)
    several = Image.open(io.BytesIO(saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])))
    several.seek(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = seen(several)  # the frame that was sought
    np.testing.assert_array_equal(got, convert_to_rgb(frames[1], return_numpy=True))


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif_is_upright():
    image = Image.fromarray(np.kron([[0, 255], [90, 180]], np.ones((16, 16))).astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(image, "AVIF", exif=exif, quality=100)
    reference = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(seen(data), np.asarray(reference))


def test_a_cmyk_jpeg_is_as_pillow_reads_it():
    data = saved(of_mode("CMYK", (16, 16), RNG), "JPEG")
    np.testing.assert_array_equal(seen(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


# what holds a picture, and what does not


def test_every_holder_gives_the_same_pixels(tmp_path):
    pixels = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    data, path = saved(Image.fromarray(pixels)), tmp_path / "a.png"
    path.write_bytes(data)
    holders = [
        path, str(path), data, bytearray(data), memoryview(data), Image.open(path), Image.fromarray(pixels), pixels,
        {"bytes": data, "path": None}, {"bytes": None, "path": str(path)}, {"path": str(path)},
        {"bytes": data, "path": "elsewhere.png"},
    ]  # fmt: skip
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
    allowed = {"mechvit/data/picture.py", "mechvit/data/corruptions/digital.py"}
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
