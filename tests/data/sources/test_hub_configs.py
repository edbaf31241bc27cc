"""Hub sets with configs and splits: each is named, and what does not exist is answered with what does."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from PIL import Image

from mechvit.data import load_images
from mechvit.data.sources.hub import HubSet

CARD = """---
configs:
- config_name: plain
  data_files:
  - split: train
    path: plain/train-*
  - split: validation
    path: plain/validation-*
- config_name: noisy
  data_files:
  - split: test
    path: noisy/test-*
---
"""


@pytest.fixture
def source(tmp_path) -> str:
    """A local folder in the hub's layout, with the configs plain (train, validation) and noisy (test)."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    for red, name in enumerate(("plain/train", "plain/validation", "noisy/test")):
        rows = {
            "image": [Image.new("RGB", (8, 8), (50 * red, i, 0)) for i in range(20)],
            "label": [i % 2 for i in range(20)],
        }
        file = tmp_path / "set" / f"{name}-00000.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    Path(tmp_path / "set" / "README.md").write_text(CARD)
    return str(tmp_path / "set")


@pytest.mark.parametrize(
    ("named", "red", "split"),
    [
        (":plain", 50, "validation"),
        (":plain@train", 0, "train"),
        (":noisy", 100, "test"),
        (":noisy@test", 100, "test"),
        (":noisy@test:label=label", 100, "test"),
    ],
)
def test_config_and_split_are_named(source, named, red, split):
    said: list[str] = []
    images = load_images(source + named, say=said.append)
    assert said == [f"20 images of the split {split}"]
    assert {image.getpixel((0, 0))[0] for image in images["image"]} == {red}


def test_what_exists_is_named(source):
    for wrong, message in [
        ("", r"has the configs plain, noisy; none is named: write .*set:CONFIG$"),
        ("@train", r"has the configs plain, noisy; none is named: write .*set:CONFIG@train$"),
        (":other@test", r"has the configs plain, noisy; got 'other': write .*set:CONFIG@test$"),
        (":noisy@train", r"set:noisy has the splits test; got 'train': write .*set:noisy@SPLIT$"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_images(source + wrong)


def test_sources_are_parsed_whole():
    written = "owner/name:config@split:image=a:label=b"
    assert HubSet.parse(written) == HubSet("owner/name", "split", "a", "b", written, "config")
    assert HubSet.parse("owner/name") == HubSet("owner/name", written="owner/name")


def test_a_set_of_pictures_alone_has_no_labels(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    rows = {"image": [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(20)], "caption": ["a picture"] * 20}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "test-00000.parquet")
    said: list[str] = []
    assert load_images(str(tmp_path), unlabelled="keep", say=said.append)["label"] == [-1] * 20
    assert said == ["20 images of the split test, without labels"]
    with pytest.raises(ValueError, match="must have a ClassLabel column"):
        load_images(str(tmp_path))
