"""The check of a set's images is the same reading as their use, and settles 16 bits over the whole set."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mechvit.data import PictureColumn, align_labels, iter_batches, load_images, open_picture, prepare
from mechvit.data.content import images_fingerprint
from mechvit.data.sources.picture import decode

PARTS = ("finetune", "finetune_validation", "sae", "test")
RNG = np.random.default_rng(0)


def grey_folder(root: Path, high: int, kind: str = "png", count: int = 20) -> str:
    """Two classes of 16-bit grey pictures with values up to `high`."""
    for name in ("chest", "hand"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            values = RNG.integers(0, high + 1, (32, 32), dtype=np.uint16)
            values[0, 0] = high
            Image.fromarray(values).save(root / name / f"{i:02}.{kind}")
    return f"folder:{root}"


def phone_png(path: Path, exif: bytes) -> None:
    """A PNG with a chunk eXIf of these bytes."""
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(file, "PNG")
    data = file.getvalue()
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data[:33] + chunk + data[33:])


def hub_set(folder: Path, pictures: list) -> str:
    """A local folder in the hub's layout, with nulls where a picture is None."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": pictures, "label": [i % 2 for i in range(len(pictures))]}
    folder.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "test-00000.parquet")
    return str(folder)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_twelve_bits_are_refused_until_their_range_is_given(tmp_path, tiny_processor, kind):
    source = grey_folder(tmp_path / "images", 4095, kind)
    with pytest.raises(ValueError, match=r"and 39 more: 16-bit values of at most 4,095.*pixel_range=\(LOW, HIGH\)"):
        load_images(source)
    with pytest.raises(ValueError, match="16-bit values"):
        load_images(source, bad_files="skip")
    images = load_images(source, pixel_range=(0, 4095))
    for row in images:
        values = np.asarray(Image.open(row["file"])).astype(np.float64)
        np.testing.assert_array_equal(np.asarray(row["image"]), np.rint(values / 4095 * 255)[..., None].repeat(3, -1))
    pixels = np.stack(prepare(images, tiny_processor).with_format("numpy")["pixels"][:])
    np.testing.assert_array_equal(pixels, np.stack([np.asarray(image).transpose(2, 0, 1) for image in images["image"]]))


def test_one_value_above_4095_settles_a_set_of_sixteen_bits(tmp_path, tiny_processor):
    source = grey_folder(tmp_path / "images", 4095)
    first = Path(load_images(source, pixel_range=(0, 4095), limit=2)["file"][1])
    Image.fromarray(np.full((32, 32), 4096, np.uint16)).save(first)
    images = load_images(source)
    assert np.asarray(images[0]["image"]).max() == round(4095 / 65535 * 255)
    batch = next(iter_batches(images, tiny_processor, batch_size=2))  # the others of the set have settled it
    assert batch.images.max() == np.float32(16 / 255)
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(first)
    with pytest.raises(ValueError, match="1 more: 16-bit values"):
        load_images(source, limit=2)


@pytest.mark.parametrize("bad", [(1, 1), (0, float("nan"))])
def test_a_bad_range_is_refused_by_every_source(tmp_path, bad):
    for source in ("photos", grey_folder(tmp_path / "images", 9)):
        with pytest.raises(ValueError, match=r"pixel_range must be two numbers"):
            load_images(source, pixel_range=bad)


def test_embedded_pictures_are_read_as_those_of_a_folder(tmp_path):
    """The same 12-bit pictures, an upright phone photo among them, as files and inside Parquet."""
    source = grey_folder(tmp_path / "images", 4095, count=10)
    files = sorted((tmp_path / "images").rglob("*.png"))
    hub = hub_set(tmp_path / "hub", [str(file) for file in files])
    inside = hub_set(tmp_path / "inside", [{"bytes": file.read_bytes(), "path": None} for file in files])
    with pytest.raises(ValueError, match="16-bit values"):
        load_images(inside)
    ours = {
        Path(row["file"]): np.asarray(row["image"])
        for part in PARTS
        for row in load_images(source, part, pixel_range=(0, 5000))
    }
    for place in (hub, inside):
        rows = [row for part in PARTS for row in load_images(place, part, pixel_range=(0, 5000))]
        assert len(rows) == 20
        for row in rows:
            np.testing.assert_array_equal(np.asarray(row["image"]), ours[files[row["image_id"]]])


def test_exif_that_cannot_be_read_is_found_by_the_check(tmp_path, tiny_processor):
    """It used to pass the check, and to raise without a name in the middle of the work."""
    root = tmp_path / "images"
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(20):
        phone_png(root / "cat" / f"{i:02}.png", exif.tobytes()[6:])
        phone_png(root / "dog" / f"{i:02}.png", b"no EXIF at all" if i % 2 else exif.tobytes()[6:])
    with pytest.raises(ValueError, match=r"dog/\d\d.png has EXIF that cannot be read .*bad_files='skip' to leave"):
        load_images(f"folder:{root}", "finetune")
    with pytest.warns(UserWarning, match="left out"):
        images = load_images(f"folder:{root}", "finetune", bad_files="skip")
    assert sum("dog" in file for file in images["file"]) > 0
    prepare(images, tiny_processor)
    for row in images:
        upright = ImageOps.exif_transpose(Image.open(row["file"]))
        np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(upright))
        assert row["image"].size == (6, 8)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), is_progressive=st.booleans(), mode=st.sampled_from(["L", "RGB", "CMYK"]))
def test_a_damaged_jpeg_passes_the_check_exactly_if_it_can_be_read(data, is_progressive, mode):
    """The check decodes a JPEG at an eighth of its size: all of its stream, so that it sees what full size sees."""
    colours = np.random.default_rng(0).integers(0, 256, (33, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).convert(mode).save(file, "JPEG", progressive=is_progressive)
    damaged = bytearray(file.getvalue())
    places = st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, max_size=5)):
        damaged[place] = value
    cut = data.draw(st.none() | st.integers(1, len(damaged)))
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for is_draft in (True, False):
            try:
                decode(bytes(damaged[:cut]), None, is_draft=is_draft)
                said.append("read")
            except ValueError:
                said.append("refused")
    assert said[0] == said[1]


def test_missing_pictures_are_named_or_left_out(tmp_path, tiny_processor):
    pictures = [None if i % 5 == 0 else Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(40)]
    source = hub_set(tmp_path, pictures)
    with pytest.raises(ValueError, match=r"row \d+ is missing \(null\); repair or remove it"):
        load_images(source, "finetune")
    kept: list[int] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for part in PARTS:
            kept += load_images(source, part, bad_files="skip")["image_id"]
    assert sorted(kept) == [i for i in range(40) if i % 5]
    assert sum(int(str(w.message).split()[2]) for w in caught if "left out" in str(w.message)) == 8
    foreign = datasets.load_dataset(source, split="test").add_column("image_id", list(range(40)))
    with pytest.raises(ValueError, match=r"is missing \(null\)"):
        next(iter_batches(foreign, tiny_processor))


def test_a_class_without_a_readable_image_is_refused_by_name(tmp_path):
    root = tmp_path / "images"
    for name in ("cat", "dog", "elk"):
        (root / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(root / name / f"{i}.png")
            if name == "elk":
                (root / name / f"{i}.png").write_bytes(b"no image")
    for part in PARTS:
        with pytest.raises(ValueError, match=r"no image of the class elk can be read; the first: .*is not an image"):
            load_images(f"folder:{root}", part, bad_files="skip")
    Image.new("RGB", (4, 4)).save(root / "elk" / "0.png")  # one in one part is enough for all
    with pytest.warns(UserWarning, match="left out"):
        kept = [file for part in PARTS for file in load_images(f"folder:{root}", part, bad_files="skip")["file"]]
    assert sum("elk" in file for file in kept) == 1
    assert len(kept) == 21


def test_of_animations_the_first_frame_is_taken_and_said(tmp_path):
    root = tmp_path / "images"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(10):
            frames = [Image.new("RGB", (4, 4), (k, 9 * i, 0)) for k in (200, 100)]
            frames[0].save(root / name / f"{i}.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"4 files have several frames; the first of each is used: .*gif"):
        images = load_images(f"folder:{root}", "test")
    assert all(image.getpixel((0, 0))[0] == 200 for image in images["image"])


def test_the_column_keeps_its_reading_through_what_datasets_does(tmp_path):
    source = grey_folder(tmp_path / "images", 4095)
    images = load_images(source, "finetune", pixel_range=(0, 4095))
    wanted = [np.asarray(image) for image in images["image"]]
    labelled = align_labels(images, {0: "hand", 1: "chest"})
    for changed in (
        images.select(range(len(images))),
        images.select_columns(["image"]),
        images.rename_column("file", "name"),
        labelled,
        images.filter(lambda row: True, input_columns="label", load_from_cache_file=False),
        datasets.concatenate_datasets([images, images]),
    ):
        assert changed.features["image"] == PictureColumn(pixel_range=(0, 4095), is_settled=True)
        for image, expected in zip(changed["image"], wanted, strict=False):
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_sets_of_others_are_read_by_the_opener_too(tmp_path, tiny_processor):
    """`datasets` decodes 16 bits as they are, and alpha and orientation are its caller's affair."""
    exif = Image.Exif()
    exif[0x0112] = 8
    files = []
    for i in range(3):
        files.append(str(tmp_path / f"{i}.png"))
        values = RNG.integers(0, 65536, (32, 32), dtype=np.uint16)
        Image.fromarray(values).save(files[-1], exif=exif)
    files.append(str(tmp_path / "clear.png"))
    Image.fromarray(RNG.integers(0, 256, (32, 32, 4), dtype=np.uint8)).save(files[-1])
    columns = {"image": files, "label": [0, 1, 0, 1], "image_id": range(4)}
    theirs = datasets.Dataset.from_dict(columns).cast_column("label", datasets.ClassLabel(names=["a", "b"]))
    expected = np.stack([np.asarray(open_picture(file)).transpose(2, 0, 1) for file in files])
    for feature in (datasets.Image(), datasets.Image(decode=False), datasets.Image(mode="RGB")):
        images = theirs.cast_column("image", feature)
        batch = next(iter_batches(images, tiny_processor))
        np.testing.assert_array_equal((batch.images * 255).round().numpy(), expected)
        np.testing.assert_array_equal(prepare(images, tiny_processor).with_format("numpy")["pixels"][:], expected)
        assert images_fingerprint(images) == images_fingerprint(theirs.cast_column("image", PictureColumn()))
    with pytest.raises(ValueError, match="decoded in mode L"):
        prepare(theirs.cast_column("image", datasets.Image(mode="L")), tiny_processor)
    Image.fromarray(np.full((32, 32), 4000, np.uint16)).save(files[0])
    with pytest.raises(ValueError, match=r"0.png: 16-bit values of at most 4,000"):
        next(iter_batches(theirs.cast_column("image", datasets.Image()), tiny_processor))
    given = theirs.select([0]).cast_column("image", PictureColumn(pixel_range=(0, 4000)))
    assert next(iter_batches(given, tiny_processor)).images.min() == 1
