"""Modes, transparency, frames and orientation of pictures, against Pillow and transformers."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from picture_files import RNG, of_mode, saved, seen
from PIL import Image, ImageOps, features
from transformers.image_transforms import convert_to_rgb

from mechvit.data import open_picture

MODES = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")


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
        if image.mode in ("PA", "HSV") or image.mode not in writable.get(kind, (image.mode,)):
            image = image.convert("RGBA")
        picture = saved(image, "PNG" if kind == "path" else kind, exif=exif)
    reference = image if kind == "memory" else Image.open(io.BytesIO(picture))
    if kind == "path":
        path = tmp_path_factory.mktemp("pictures") / "picture.png"
        path.write_bytes(picture)
        picture = path
    expected = convert_to_rgb(ImageOps.exif_transpose(reference), return_numpy=True)
    np.testing.assert_array_equal(seen(picture), expected)


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
        with pytest.warns(UserWarning, match="the first of several frames is used: the picture"):
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
