"""A data set's fingerprint covers every pixel, and is made once."""

from __future__ import annotations

import hashlib
import json
import os

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import ViTImageProcessorPil

from mechvit.data import content, load_images, prepare
from mechvit.data.content import images_fingerprint

SQUARE = ViTImageProcessorPil(size={"height": 32, "width": 32})
BICUBIC = ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=3)


@pytest.fixture
def hashed(monkeypatch):
    """Counts how often a set is read whole."""
    calls, own = [], content._hashed
    monkeypatch.setattr(content, "_hashed", lambda images, column: calls.append(column) or own(images, column))
    monkeypatch.setattr(content, "_KNOWN", {})
    return calls


@pytest.fixture(scope="module")
def raw():
    return load_images("photos", "test", limit=200, image_size=40)


def painted(images, row):
    """The same set with one bit of one image changed."""
    pixels = images.with_format("numpy")["pixels"][:]
    pixels[row, 1, 5, 7] ^= 1
    return images.map(lambda _, i: {"pixels": pixels[i]}, with_indices=True, keep_in_memory=True)


@pytest.mark.parametrize("row", [1, 100, 198])
def test_every_image_counts(raw, row):
    """64 evenly spaced ones of 200 did before: a change of image 1, 100 or 198 was not seen."""
    images = prepare(raw, SQUARE)
    assert images_fingerprint(painted(images, row)) != images_fingerprint(images)


def test_it_is_the_hash_of_ids_labels_and_bytes(raw):
    images = prepare(raw, SQUARE)
    plain = images.with_format("numpy")
    digest = hashlib.sha256(b"200" + plain["image_id"][:].tobytes() + plain["label"][:].tobytes())
    digest.update(np.asarray(plain["pixels"][:], np.uint8).tobytes())
    assert images_fingerprint(images) == digest.hexdigest()[:16]


def test_a_set_on_disk_is_hashed_when_it_is_prepared(raw, tmp_path, hashed):
    images = prepare(raw, SQUARE, path=tmp_path / "images")
    assert hashed == ["pixels"]
    again = datasets.load_from_disk(tmp_path / "images")
    in_memory = prepare(raw, SQUARE)
    found = [images_fingerprint(each) for each in (images, again)]
    assert hashed == ["pixels"]  # nothing was read again
    assert {*found, images_fingerprint(in_memory)} == {found[0]}


def test_views_and_changes_of_a_kept_set_are_not_taken_for_it(raw, tmp_path):
    images = prepare(raw, SQUARE, path=tmp_path / "images")
    others = [images.select(range(150)), painted(images, 3), images.shuffle(seed=0)]
    found = [images_fingerprint(each) for each in (images, *others)]
    assert len(set(found)) == 4
    assert found[1] == images_fingerprint(prepare(raw.select(range(150)), SQUARE))


def test_files_of_another_time_are_read_again(raw, tmp_path, hashed):
    prepare(raw, SQUARE, path=tmp_path / "images")
    (arrow,) = (tmp_path / "images").glob("*.arrow")
    os.utime(arrow, ns=(1, 1))
    images = datasets.load_from_disk(tmp_path / "images")
    for _ in range(3):
        images_fingerprint(images)
    assert hashed == ["pixels", "pixels"]


def test_each_models_column_has_its_own(raw, tmp_path):
    for path in (None, tmp_path / "images"):
        both = prepare(raw, [SQUARE, BICUBIC], path=path)
        found = [images_fingerprint(both, each) for each in (SQUARE, BICUBIC)]
        assert found == [images_fingerprint(prepare(raw, each)) for each in (SQUARE, BICUBIC)]
        assert found[0] != found[1]
    with pytest.raises(ValueError, match="pixels of several models, pixels, pixels_2: give an image processor"):
        images_fingerprint(both)


def test_raw_files_are_read_once_and_again_when_they_change(tmp_path, hashed):
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 30, 3), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        (tmp_path / "folder" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "folder" / f"class{i % 2}" / f"{i}.png")
    images = load_images(f"folder:{tmp_path / 'folder'}", "finetune")
    first = images_fingerprint(images)
    assert first == images_fingerprint(load_images(f"folder:{tmp_path / 'folder'}", "finetune"))
    assert hashed == ["image"]
    changed = images.cast_column("image", datasets.Image(decode=False))[0]["image"]["path"]
    Image.fromarray(255 - noise[0]).save(changed)
    assert images_fingerprint(images) != first
    assert hashed == ["image", "image"]


def test_sets_resized_in_several_ways_are_not_joined(raw):
    same = datasets.concatenate_datasets([prepare(raw.select(range(10)), SQUARE), prepare(raw.select([20]), SQUARE)])
    assert images_fingerprint(same) == images_fingerprint(prepare(raw.select([*range(10), 20]), SQUARE))
    joined = datasets.concatenate_datasets([prepare(raw.select(range(10)), each) for each in (SQUARE, BICUBIC)])
    with pytest.raises(ValueError, match="come from data sets that were resized differently"):
        images_fingerprint(joined)


def test_a_set_from_before_says_nothing_and_is_taken_as_it_is(raw, tmp_path):
    """Its description is that of the older version: none."""
    prepare(raw, SQUARE, path=tmp_path / "images")
    info = tmp_path / "images" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"description": ""}))
    assert images_fingerprint(datasets.load_from_disk(tmp_path / "images")) == images_fingerprint(prepare(raw, SQUARE))
