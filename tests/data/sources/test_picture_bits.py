"""Pictures of more than eight bits per channel become bytes by their range, against numpy and tifffile."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import RNG, grey, in_bytes, png, saved, seen, tiff, values_16
from PIL import Image, ImageOps

from mechvit.data import open_picture, open_pictures


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
        with pytest.raises(ValueError, match=r"at most 4,095.*pixel_range=\(LOW, HIGH\), as in 0 and 4095"):
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


@pytest.mark.parametrize("bad", [(1, 1), (4095, 0), (0, float("inf")), (0,), "ab", 5, (float("nan"), 1)])
def test_a_range_must_be_two_ascending_numbers(bad):
    with pytest.raises(ValueError, match=r"pixel_range must be two numbers"):
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
            values.astype(f"{order}u2"),
            byteorder=order,
            extratags=tags,
            photometric="minisblack" if channels == 1 else "rgb",
        ),
    }[kind]()
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
