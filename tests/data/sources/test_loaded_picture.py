"""Pictures that Pillow has loaded, pictures of eight bits with a range, and masked arrays: exact, or refused."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import RNG, grey, in_bytes, png, saved, seen, tiff, values_16
from PIL import Image

from mechvit.data import PictureColumn, load_images, open_picture, open_pictures

DEEP = values_16(6, 5, 3)
FILES = {
    "png": png(DEEP, 2),
    "alpha.png": png(np.dstack([DEEP, np.full((6, 5), 65535, np.uint16)]), 6),
    "tif": tiff(DEEP, photometric="rgb"),
    "big.tif": tiff(DEEP.astype(">u2"), photometric="rgb", byteorder=">", compression="zlib"),
}


def loaded(source) -> Image.Image:
    image = Image.open(source)
    image.load()
    return image


@pytest.mark.parametrize("name", FILES)
def test_a_loaded_picture_of_sixteen_bits_is_read_from_its_file(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    image = loaded(path)
    cut = np.asarray(image)[..., :3]
    assert (cut != in_bytes(DEEP)).any()
    assert cut.max() == 255
    np.testing.assert_array_equal(seen(image), in_bytes(DEEP))
    np.testing.assert_array_equal(seen(image, pixel_range=(0, 65535)), in_bytes(DEEP))
    np.testing.assert_array_equal(np.asarray(image)[..., :3], cut)


@pytest.mark.parametrize("name", FILES)
def test_a_picture_is_the_same_however_often_it_is_opened(name):
    image = Image.open(io.BytesIO(FILES[name]))
    for _ in range(3):
        np.testing.assert_array_equal(seen(image), in_bytes(DEEP))


def test_a_loaded_picture_that_is_no_longer_its_file_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(FILES["png"])
    image = loaded(path)
    image.putpixel((0, 0), (1, 2, 3))
    with pytest.raises(ValueError, match=r"a.png differs from its file of 16 bits per channel"):
        open_picture(image)
    image = loaded(path)
    path.write_bytes(saved(Image.fromarray(RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8))))
    np.testing.assert_array_equal(seen(image), np.asarray(image))  # the file that is there now says nothing of it


def test_traces_of_sixteen_bits_in_loaded_pictures_are_refused():
    """Without its file: a TIFF's tags, a transparent value beyond eight bits, and 12 bits by their darkness."""
    for name in ("tif", "big.tif"):
        with pytest.raises(ValueError, match=r"comes from a file of 16 bits per channel.*the file's path or bytes"):
            open_picture(loaded(io.BytesIO(FILES[name])))
    key = png(DEEP, 2, (b"tRNS", struct.pack(">HHH", 1000, 2, 3)))
    with pytest.raises(ValueError, match="comes from a file of 16 bits per channel"):
        open_picture(loaded(io.BytesIO(key)))
    twelve = values_16(6, 5, 4, high=4095)
    twelve[..., 3] = 65535
    for data in (png(twelve[..., :3], 2), png(twelve, 6), png(twelve[..., 2:], 4)):
        with pytest.raises(
            ValueError, match=r"no value above \d+\) that its PNG file may hold 12 bits.*image.copy\(\)"
        ):
            open_picture(loaded(io.BytesIO(data)))
    dark = Image.fromarray(RNG.integers(0, 16, (6, 5, 3), dtype=np.uint8))
    for image in (dark, loaded(io.BytesIO(saved(dark))).copy(), loaded(io.BytesIO(saved(dark, "BMP")))):
        np.testing.assert_array_equal(seen(image), np.asarray(dark))


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(["L", "LA", "RGB", "RGBA", "P", "1"]),
    kind=st.sampled_from(["PNG", "TIFF"]),
    in_file=st.booleans(),
    seed=st.integers(0, 99),
)
def test_loaded_pictures_of_eight_bits_are_as_before(tmp_path_factory, mode, kind, in_file, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGB").convert(mode)
    data = saved(image, kind)
    path = tmp_path_factory.mktemp("loaded") / "a"
    path.write_bytes(data)
    np.testing.assert_array_equal(seen(loaded(path if in_file else io.BytesIO(data))), seen(data))


def test_loaded_grey_of_sixteen_bits_keeps_what_its_file_states(tmp_path):
    """Pillow keeps the values, but not how many of their bits count."""
    values = values_16(6, 5, high=16383)
    path = tmp_path / "a.png"
    path.write_bytes(png(values, 0, (b"sBIT", b"\x0e")))
    np.testing.assert_array_equal(seen(loaded(path)), grey(in_bytes(values, 0, 16383)))
    image = loaded(path)
    image.putpixel((0, 0), 16384)  # whole values, of which nothing is stated any more
    changed = values.copy()
    changed[0, 0] = 16384
    np.testing.assert_array_equal(seen(image), grey(in_bytes(changed)))
    tif = tmp_path / "a.tif"
    tifffile.imwrite(tif, values, extratags=[(281, 3, 1, 16383, True)])
    for source in (tif, io.BytesIO(tif.read_bytes())):
        np.testing.assert_array_equal(seen(loaded(source)), grey(in_bytes(values, 0, 16383)))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_grey_of_sixteen_bits_in_memory_is_scaled(mode):
    values = values_16(6, 5)
    image = Image.frombytes(mode, (5, 6), values.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    np.testing.assert_array_equal(seen(image), grey(in_bytes(values)))
    np.testing.assert_array_equal(seen(image.copy()), grey(in_bytes(values)))


# a range for pictures of eight bits


def test_a_range_for_eight_bits_is_refused(tmp_path):
    eight = RNG.integers(0, 256, (4, 4), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(eight).save(path)
    for picture in (eight, path, Image.fromarray(eight), eight > 9, path.read_bytes()):
        for given_range in ((0, 4095), (0, 100), (-1, 255)):
            with pytest.raises(ValueError, match=r"eight bits per channel are black at 0 and white at 255, not at"):
                open_picture(picture, pixel_range=given_range)
        np.testing.assert_array_equal(seen(picture, pixel_range=(0, 255)), seen(picture))
    with pytest.raises(ValueError, match=r"^a and 1 more: eight bits .*: leave it out"):
        open_pictures({"a": eight, "b": eight}, pixel_range=(0, 4095))
    column = PictureColumn(pixel_range=(0, 4095))
    with pytest.raises(ValueError, match=r"a.png: eight bits per channel"):
        column.decode_example({"path": str(path), "bytes": None})


def test_eight_bits_beside_more_are_warned_of():
    eight, twelve = RNG.integers(0, 256, (4, 4), dtype=np.uint8), values_16(4, 4, high=4095)
    with pytest.warns(UserWarning, match=r"^1 of 2 pictures keep their values: .* not at 0 and 4095 .*: \\x1bplain$"):
        opened = open_pictures({"\x1bplain": eight, "deep": twelve}, pixel_range=(0, 4095))
    np.testing.assert_array_equal(np.asarray(opened["\x1bplain"]), grey(eight))
    np.testing.assert_array_equal(np.asarray(opened["deep"]), grey(in_bytes(twelve, 0, 4095)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_pictures({"deep": twelve}, pixel_range=(0, 4095))


def test_a_set_of_eight_bits_takes_no_range(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.fromarray(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(ValueError, match=r"png and 19 more: eight bits per channel are black at 0"):
        load_images(f"folder:{tmp_path}", pixel_range=(0, 4095))
    with pytest.raises(ValueError, match=r"^photos: eight bits per channel are black at 0 .*: leave it out"):
        load_images("photos", limit=19, pixel_range=(0, 4095))
    assert len(load_images(f"folder:{tmp_path}", pixel_range=(0, 255))) == 20
    first = load_images(f"folder:{tmp_path}")["file"][0]
    Image.fromarray(values_16(4, 4, high=4095)).save(first)
    with pytest.warns(UserWarning, match=r"^19 of 20 pictures keep their values"):
        load_images(f"folder:{tmp_path}", pixel_range=(0, 4095))


# masked arrays


def test_masked_pixels_are_counted_and_refused():
    values = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    masked = np.ma.masked_array(values, mask=False)
    np.testing.assert_array_equal(seen(masked), values)
    masked[1, 2, 0] = np.ma.masked
    masked[1, 2, 1] = np.ma.masked
    masked[3, 4] = np.ma.masked
    with pytest.raises(ValueError, match=r"an array with 2 of 20 pixels masked: .*picture.filled\(0\)"):
        open_picture(masked)
    np.testing.assert_array_equal(seen(masked.filled(7)), masked.filled(7))
    for dtype, options in ((np.uint16, {}), (np.float32, {"pixel_range": (0, 255)}), (bool, {})):
        grey_values = np.ma.masked_array(values[..., 0].astype(dtype), mask=values[..., 0] < 100)
        count = int((values[..., 0] < 100).sum())
        with pytest.raises(ValueError, match=rf"with {count} of 20 pixels masked"):
            open_picture(grey_values, **options)
    whole = np.ma.masked_array(DEEP, mask=np.zeros(DEEP.shape, bool))
    np.testing.assert_array_equal(seen(whole), in_bytes(DEEP))
