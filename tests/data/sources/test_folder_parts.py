"""Folders with train, val and test folders, with classes or without: all images, or parts that never share one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mechvit.data import align_labels, load_images, load_pictures
from mechvit.data.sources.folder_source import FolderSource, is_split, split_kind
from mechvit.data.sources.load import count_images

PARTS = ("finetune", "finetune_validation", "test")
SEED = iter(range(10_000_000))


def fill(root: Path, *folders: str, count: int = 10) -> str:
    """Write different pictures into folders; the source of the whole."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng(next(SEED)).integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    return f"folder:{root}"


def paths(source: str, part: str) -> list[str]:
    return load_images(source, part)["file"]


def test_all_images_are_taken_unless_a_part_is_named(tmp_path):
    source, said = fill(tmp_path, "cat", "dog", count=90), []
    assert len(load_images(source, say=said.append)) == 180
    assert len(load_images(source, "test", say=said.append)) == 36
    assert len(load_images(source, "test", limit=20, say=said.append)) == 20
    assert len(load_images(source, limit=20, say=said.append)) == 20
    assert len(load_images("photos", limit=19, say=said.append)) == 19
    assert said == [
        "180 images",
        "36 of 180 images: the part `test`",
        "20 of 180 images: the first of the part `test`",
        "20 of 180 images: the first, classes in turn",
        "19 images: crops of photographs, the part `test`",
    ]


@pytest.mark.parametrize("name", ["val", "Valid", "validation", "VALIDATION_images", "val.X"])
def test_a_split_is_named_by_what_it_is_for(tmp_path, name):
    source, said = fill(tmp_path, f"{name}/cat", f"{name}/dog", "train.X/cat", "train.X/dog"), []
    for wanted in ("val", name, name.upper()):
        images = load_images(f"{source}@{wanted}", say=said.append)
        assert {Path(file).parents[1].name for file in images["file"]} == {name}
        assert images.features["label"].names == ["cat", "dog"]
        assert images["path"][0] == f"cat/{Path(images['file'][0]).name}"
    assert set(said) == {f"20 images of the folder {name}"}
    with pytest.raises(ValueError, match=rf"not like classes \(.*\): name one of them, as in {source}@{name}, or"):
        load_images(source)
    with pytest.raises(ValueError, match=r"has no folder test: "):
        load_images(f"{source}@test")


def test_several_folders_of_one_kind_are_told_apart(tmp_path):
    source = fill(tmp_path, "train.X1/cat", "train.X2/cat", "val.X/cat")
    with pytest.raises(ValueError, match=r"several folders that train can mean: train\.X1, train\.X2; name one"):
        load_images(f"{source}@train")
    assert len(load_images(f"{source}@train.X2")) == 10
    with pytest.raises(ValueError, match="not like classes"):
        load_images(source, "finetune")
    assert [split_kind(name) for name in ("Train2017", "valid", "testing", "dev", "cat", "val.X")] == [
        "train", "val", "test", None, None, "val",
    ]  # fmt: skip
    assert not is_split("val.Xray")


@pytest.mark.parametrize(
    ("folders", "counts"),
    [
        (("train", "val", "test"), {"finetune": 20, "sae": 20, "finetune_validation": 20, "test": 20}),
        (("Training", "Validation"), {"finetune": 20, "sae": 20, "finetune_validation": 10, "test": 10}),
        (("train", "testing"), {"finetune": 18, "sae": 18, "finetune_validation": 2, "test": 20}),
    ],
)
def test_given_folders_are_the_parts(tmp_path, folders, counts):
    source = fill(tmp_path, *(f"{split}/{name}" for split in folders for name in ("cat", "dog")))
    found = {part: load_images(source, part) for part in counts}
    assert {part: len(images) for part, images in found.items()} == counts
    assert {part: count_images(source, part) for part in counts} == counts
    files = [set(found[part]["file"]) for part in PARTS]
    ids = [image_id for part in PARTS for image_id in found[part]["image_id"]]
    assert len(set.union(*files)) == sum(map(len, files)) == len(set(ids)) == len(ids)
    assert {Path(file).parents[1].name for file in found["finetune"]["file"]} == {folders[0]}
    assert {Path(file).parents[1].name for file in found["test"]["file"]} == {folders[-1]}
    assert found["sae"]["file"] == found["finetune"]["file"]


def test_the_line_names_the_given_folder(tmp_path):
    source, said = fill(tmp_path, "train/cat", "val/cat"), []
    for part in PARTS:
        load_images(source, part, say=said.append)
    assert said == [
        "10 images of the folder train: the part `train`",
        "5 of 10 images of the folder val: the part `validation`",
        "5 of 10 images of the folder val: the part `test`",
    ]


def test_other_folders_beside_the_splits_are_never_left_out_in_silence(tmp_path):
    source = fill(tmp_path, "train/cat", "val/cat", "masks/cat")
    for part in ("all", "finetune"):
        with pytest.raises(ValueError, match=r"mixes folders .* \(train, val\) with others \(masks\)"):
            load_images(source, part)
    assert len(load_images(f"{source}@val")) == 10


def test_a_folder_called_at_something_is_taken_as_it_is(tmp_path):
    source = fill(tmp_path / "me@home", "cat", "dog")
    assert FolderSource.parse(source) == FolderSource(tmp_path / "me@home")
    assert FolderSource.parse(f"{source}@val:class=train") == FolderSource(tmp_path / "me@home", ("train",), "val")
    assert FolderSource.parse("folder:no@where/here") == FolderSource(Path("no@where/here"))


# without labels


def test_a_folder_without_sub_folders_has_no_labels(tmp_path):
    source, said = fill(tmp_path, ".", count=40), []
    with pytest.raises(ValueError, match=r"the 40 images of folder:.* have no labels, .* has no sub-folders"):
        load_images(source)
    images = load_images(source, unlabelled="keep", say=said.append)
    test = load_images(source, "test", unlabelled="keep", say=said.append)
    assert images["label"] == [-1] * 40
    assert images["path"] == [Path(file).name for file in images["file"]]
    assert said == ["40 images, without labels", f"{len(test)} of 40 images: the part `test`, without labels"]
    aligned = align_labels(images, {0: "cat", 1: "dog"}, unlabelled="keep")
    assert aligned["label"] == [-1] * 40
    assert aligned.features["label"].names == ["cat", "dog"]
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"notes\.txt is not an image"):
        load_images(source, unlabelled="keep")


def test_pictures_are_images_without_labels_in_the_given_order(tmp_path):
    fill(tmp_path, ".", count=3)
    names = [tmp_path / f"{i}.png" for i in (2, 0)]
    images = load_pictures(names)
    assert images["file"] == [str(name) for name in names]
    assert (images["label"], images["image_id"]) == ([-1, -1], [0, 1])
    np.testing.assert_array_equal(np.asarray(images[1]["image"]), np.asarray(Image.open(names[1])))
    for wrong, message in [([], "at least one"), ([names[0]] * 2, "each picture once"), ([tmp_path], "is a folder")]:
        with pytest.raises(ValueError, match=message):
            load_pictures(wrong)
    with pytest.raises(ValueError, match=r"none\.png cannot be read"):
        load_pictures([tmp_path / "none.png"])
