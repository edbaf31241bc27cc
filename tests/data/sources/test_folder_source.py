"""Folders that mix splits and classes, or hold a whole system, are refused by name; what is meant can be said."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mechvit.data import load_images
from mechvit.data.sources.folder_source import SPLIT_NAMES, FolderSource, is_split
from mechvit.data.sources.load import count_images
from mechvit.experiment.inputs import local_inputs


def fill(root: Path, *folders: str, count: int = 10) -> str:
    for place, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng(100 * place + i).integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    return f"folder:{root}"


def classes(source: str) -> list[str]:
    return load_images(source).features["label"].names


@pytest.mark.parametrize(
    "split", ["train", "Train", "val", "TEST", "validation", "test2017", "train_images", "dev", "_eval"]
)
def test_splits_among_classes_are_refused_by_name(tmp_path, split):
    source = fill(tmp_path, split, "cat", "dog")
    message = rf"mixes folders named like splits \({split}\) with others \(cat, dog\).*:class={split}$"
    for load in (load_images, lambda source: count_images(source, "test")):
        with pytest.raises(ValueError, match=message):
            load(source)
    assert sorted(classes(f"{source}:class={split}")) == sorted([split, "cat", "dog"])


def test_a_root_of_splits_alone_is_refused(tmp_path):
    fill(tmp_path / "one", "train/cat", "train/dog")
    with pytest.raises(ValueError, match=r"like classes \(train\): name one of them, as in folder:\S+/one@train, or"):
        load_images(f"folder:{tmp_path / 'one'}")
    assert classes(f"folder:{tmp_path / 'one' / 'train'}") == ["cat", "dog"]
    fill(tmp_path / "two", "test/cat", "Train/cat", "val/cat")
    with pytest.raises(ValueError, match=r"not like classes \(Train, test, val\)"):
        load_images(f"folder:{tmp_path / 'two'}")


def test_vehicles_can_be_called_as_splits_when_it_is_said(tmp_path):
    source = fill(tmp_path, "bus", "train", "dev", count=20)
    with pytest.raises(ValueError, match=r"\(dev, train\) with others \(bus\)"):
        load_images(source)
    with pytest.raises(ValueError, match=r"\(dev\) with others \(bus, train\).*:class=train,dev$"):
        load_images(f"{source}:class=train")
    images = load_images(f"{source}:class=train,dev")
    assert images.features["label"].names == ["bus", "dev", "train"]
    for row in images:
        assert Path(row["file"]).parent.name == images.features["label"].names[row["label"]]
    with pytest.raises(ValueError, match=r"has no folder tram, which :class= names"):
        load_images(f"{source}:class=train,dev,tram")


def test_splits_within_classes_are_not_mixed(tmp_path):
    source = fill(tmp_path, "bottle/train", "bottle/test", "cable/Train", "cable/good")
    with pytest.raises(
        ValueError, match=r"classes \(bottle, cable\) that contain folders .* \(test, train, Train\).*be mixed"
    ):
        load_images(source)
    assert classes(f"{source}:class=test,train,Train") == ["bottle", "cable"]
    other = fill(tmp_path / "deep", "car/old/train", "car/new", "cat")
    assert classes(other) == ["car", "cat"]  # deeper folders name no split of the set


@pytest.mark.parametrize(
    "name", ["cat", "trainer", "bullet train", "test tube", "devil", "evaluate", "n01440764", "7", "set"]
)
def test_other_names_are_no_splits(name):
    assert not is_split(name)


def test_splits_are_those_of_datasets():
    from datasets.data_files import SPLIT_KEYWORDS

    assert sorted(SPLIT_NAMES) == sorted(word for words in SPLIT_KEYWORDS.values() for word in words)


def test_a_path_is_taken_as_it_is(tmp_path):
    odd = tmp_path / "cars:class=train"
    source = fill(odd, "a", "b")
    assert FolderSource.parse(source) == FolderSource(odd)
    assert classes(source) == ["a", "b"]
    cars = tmp_path / "other" / "cars"
    fill(cars, "a", "train")
    assert FolderSource.parse(f"folder:{cars}:class=train") == FolderSource(cars, ("train",))
    assert FolderSource.parse("photos") is None
    assert FolderSource.parse("~/a") is None
    assert FolderSource.parse("folder:~/a").root == Path.home() / "a"
    assert local_inputs(f"folder:{cars}:class=train", "photos", None) == [cars]


# whole systems


@pytest.mark.parametrize("prefix", ["folder:", ""])
def test_whole_systems_are_refused_at_once(prefix, tmp_path, monkeypatch):
    home = tmp_path / "users" / "me"
    fill(home, "cat", "dog")
    monkeypatch.setenv("HOME", str(home))
    started = time.process_time()
    refused = {
        "/": "is the root of the file system",
        "/usr/..": "is the root of the file system",
        str(home): "is your home folder",
        f"{home}/cat/..": "is your home folder",
        str(tmp_path / "users"): "holds your home folder",
        "/proc": "belongs to the system",
        "/sys/class": "belongs to the system",
    }
    for place, why in refused.items():
        if Path(place).is_dir():
            with pytest.raises(ValueError, match=f"{why}, and would be listed as a whole: name the folder that has a"):
                load_images(prefix + place)
    if prefix:
        with pytest.raises(ValueError, match="is your home folder"):
            load_images("folder:~")
        assert classes(fill(home / "pictures", "cat", "dog")) == ["cat", "dog"]
    assert time.process_time() - started < 5


def test_a_file_is_no_set_of_images(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    for path in ("/dev/null", str(tmp_path / "notes.txt")):
        with pytest.raises(ValueError, match=rf"^{path} is a file: images are photos, a folder with a sub-folder"):
            load_images(path)
        with pytest.raises(ValueError, match=rf"^folder:{path} is not a folder; give one with a sub-folder of images"):
            load_images(f"folder:{path}")


def test_a_large_folder_of_other_files_is_no_hub_set(tmp_path, monkeypatch):
    monkeypatch.setattr("mechvit.data.sources.hub._MOST_ENTRIES", 50)
    for i in range(60):
        (tmp_path / f"{i:02}").mkdir()
    (tmp_path / "59" / "test-00000.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"is a folder: write folder:{tmp_path} to load a folder of images"):
        load_images(str(tmp_path))
