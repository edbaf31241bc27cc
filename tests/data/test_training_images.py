"""The record of a checkpoint's training images: recognised wherever the files are, and left out of comparisons."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mechvit.data import load_images, load_pictures, prepare, without_training_images
from mechvit.data.training_images import RECORD, record_training_images, trained_on


@pytest.fixture
def root(tmp_path) -> Path:
    for place, name in enumerate(("cat", "dog")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.random.default_rng(100 * place + i).integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i:02}.{'jpg' if i % 2 else 'png'}")
    return tmp_path / "set"


@pytest.fixture
def checkpoint(root, tmp_path, tiny_processor) -> Path:
    """A folder with the record of a training on the parts of `root`."""
    (tmp_path / "tuned").mkdir()
    parts = (prepare(load_images(f"folder:{root}", part), tiny_processor) for part in PARTS)
    record_training_images(tmp_path / "tuned", *parts)
    return tmp_path / "tuned"


PARTS = ("finetune", "finetune_validation")


def test_the_record_is_of_the_files_themselves(root, checkpoint):
    table = pd.read_parquet(checkpoint / RECORD)
    for part, use in zip(PARTS, ("training", "validation"), strict=True):
        images = load_images(f"folder:{root}", part)
        own = table[table["use"] == use]
        assert own["image_id"].tolist() == images["image_id"]
        assert own["sha256"].tolist() == [
            hashlib.sha256(Path(file).read_bytes()).hexdigest()[:32] for file in images["file"]
        ]


@pytest.mark.parametrize("is_prepared", [False, True])
def test_renamed_and_moved_files_are_recognised(root, checkpoint, tmp_path, tiny_processor, is_prepared):
    seen = {Path(file) for part in PARTS for file in load_images(f"folder:{root}", part)["file"]}
    kept = set()
    for place, path in enumerate(sorted(root.rglob("*.*"))):
        there = tmp_path / "other" / path.parent.name / f"{1000 - place}{path.suffix}"
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)
        if path not in seen:
            kept.add(f"{path.parent.name}/{there.name}")
    images = load_images(f"folder:{tmp_path / 'other'}")
    left, n_left_out = without_training_images(
        prepare(images, tiny_processor) if is_prepared else images, [tmp_path / "nowhere", "owner/model", checkpoint]
    )
    assert set(left["path"]) == kept
    assert n_left_out == len(seen) == 40 - len(kept)


def test_what_was_not_trained_on_stays(root, checkpoint):
    images = load_images(f"folder:{root}", "test")
    assert without_training_images(images, [checkpoint]) == (images, 0)
    photos = load_images("photos", limit=19)
    assert without_training_images(photos, [checkpoint]) == (photos, 0)
    assert without_training_images(images, [])[1] == 0


def test_nothing_left_is_refused(root, checkpoint):
    with pytest.raises(ValueError, match=r"all 20 images are some that .*tuned was trained on"):
        without_training_images(load_images(f"folder:{root}", "finetune"), [checkpoint])
    (checkpoint / RECORD).write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"training_images.parquet, the record of .* cannot be read"):
        trained_on(checkpoint)


def test_the_limit_counts_what_is_left(root, checkpoint):
    """Of 40 images 16 are left, so that a limit of 16 gives all of these; bad files count no more than seen ones."""
    source, said = f"folder:{root}", []
    left = set(without_training_images(load_images(source), [checkpoint])[0]["image_id"])
    assert len(left) == 16
    for limit in (None, 16, 10):
        images = load_images(source, limit=limit, apart_from=[checkpoint], say=said.append)
        assert len(images) == (limit or 16)
        assert set(images["image_id"]) <= left
    assert said[:2] == ["left out 24 that a model was trained on, or its epoch chosen by", "16 of 40 images"]
    assert said[5] == "10 of 40 images: the first, classes in turn"
    bad = next(row for row in load_images(source, limit=10, apart_from=[checkpoint]))["file"]
    Path(bad).write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="left out 1 of 16 files"):
        images = load_images(source, limit=15, apart_from=[checkpoint], bad_files="skip", say=said.append)
    assert len(images) == 15
    assert said[-1].startswith("15 of 40 images")


def test_one_checkpoint_is_written_as_a_list(root, checkpoint):
    """A path alone would be read letter by letter."""
    for call in (
        lambda: load_images(f"folder:{root}", apart_from=str(checkpoint)),
        lambda: load_pictures(sorted(root.rglob("*.png")), apart_from=str(checkpoint)),
        lambda: without_training_images(load_images(f"folder:{root}"), str(checkpoint)),
    ):
        with pytest.raises(ValueError, match=r"write \["):
            call()


def test_a_missing_file_is_named_and_not_known(root, checkpoint):
    missing = root / "cat" / "lost.png"
    missing.symlink_to(root / "nowhere.png")
    with pytest.raises(ValueError, match=r"lost\.png"):
        load_images(f"folder:{root}", apart_from=[checkpoint])
    with pytest.warns(UserWarning, match="lost.png"):
        images = load_images(f"folder:{root}", apart_from=[checkpoint], bad_files="skip")
    assert len(images) == 16


def test_named_pictures_count_after_those_that_were_trained_on(root, checkpoint):
    files, said = sorted(root.rglob("*.*")), []
    kept = load_pictures(files, apart_from=[checkpoint], limit=3, say=said.append)
    assert len(kept) == 3
    assert said[-1] == "3 of 40 pictures: the first, without labels"
    seen = load_images(f"folder:{root}", "finetune", limit=1)["file"]
    with pytest.raises(ValueError, match=r"all 1 images are some that .*tuned was trained on"):
        load_pictures(seen, apart_from=[checkpoint])
