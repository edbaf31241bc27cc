"""Clusters of images: of the photographs' crops, and of a folder's files."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import ViTImageProcessorPil

from mechvit.data import group_columns, load_images, load_pictures, prepare
from mechvit.data.sources.photos import PHOTOGRAPHS, cell_and_box, cells


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes, two patients each, three pictures a patient: cat/p1/0.png, ..."""
    for place, folder in enumerate(("cat/p1", "cat/p2", "dog/p3", "dog/p4")):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(10 * place + i).integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / folder / f"{i}.png")
    return tmp_path / "set"


def test_crops_of_photographs_have_their_cell_and_photograph():
    images = load_images("photos", "test", limit=760)
    boxes = defaultdict(set)
    for index, (cluster, stratum) in enumerate(zip(images["cluster"], images["stratum"], strict=True)):
        name = PHOTOGRAPHS[index % 19]
        cell, (left, top, right, bottom) = cell_and_box(name, "test", index, 64, 0)
        assert cell.part == "test"
        assert cell in cells(name, 64)
        assert cell.left <= left < right <= cell.left + cell.width
        assert cell.top <= top < bottom <= cell.top + cell.height
        assert stratum == name == images.features["label"].int2str(index % 19)
        boxes[cluster].add((name, cell))
    assert [len(found) for found in boxes.values()] == [1] * 113
    assert group_columns(images) == []


@pytest.mark.parametrize(
    ("cluster", "groups"),
    [("parent", None), (r"/(?P<cluster>p\d)/", None), ("patient", r"/(?P<patient>p\d)/(?P<scan>\d)")],
)
def test_a_folder_s_clusters_come_from_folders_names_and_groups(root, cluster, groups):
    images = load_images(f"folder:{root}", cluster=cluster, groups=groups)
    assert images["cluster"] == [path.split("/")[1] for path in images["path"]]
    assert "stratum" not in images.column_names
    assert group_columns(images) == (["patient", "scan"] if groups else [])
    shown = prepare(images, ViTImageProcessorPil(size={"height": 32, "width": 32}))
    assert shown["cluster"] == images["cluster"]


def test_strata_come_from_an_expression_or_a_table(root, tmp_path):
    images = load_images(f"folder:{root}", cluster=r"(?P<stratum>cat|dog)/(?P<cluster>p\d)")
    assert images["stratum"] == [path.split("/")[0] for path in images["path"]]
    table = tmp_path / "about.csv"
    lines = [f"{path},{path.split('/')[0]},{path.split('/')[1]},7" for path in images["path"]]
    table.write_text("\n".join(["path,stratum,cluster,age", *lines]))
    again = load_images(f"folder:{root}", cluster=str(table))
    assert again.column_names == images.column_names
    assert (again["cluster"], again["stratum"]) == (images["cluster"], images["stratum"])


def test_pictures_have_clusters_too(root):
    pictures = sorted(root.rglob("*.png"))
    found = load_pictures(pictures, cluster=r"(?P<cluster>p\d)/\d\.png")
    assert found["cluster"] == [path.parent.name for path in pictures]


def test_clusters_that_are_not_sure_are_refused(root, tmp_path):
    table = tmp_path / "about.csv"
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    cases = {
        "patient": "the cluster, if it is no group, must be 'parent', a table",
        r"/(?P<patient>p\d)/": r"a group or a column called cluster .*; got patient",
        r"(?P<cluster>p[12])": "of the cluster, if it is no group, matches 6 of 12 images",
        r"/(p1/|(?P<cluster>p\d)/)": r"every image needs a cluster; 3 of 12 have none, as cat/p1/0\.png",
        str(tmp_path / "none.csv"): "and there is no such file",
    }
    for cluster, line in cases.items():
        with pytest.raises(ValueError, match=line) as refused:
            load_images(f"folder:{root}", cluster=cluster)
        assert "\n" not in str(refused.value)
    table.write_text("\n".join(["path,cluster", *(f"{path},{'a' if i else ''}" for i, path in enumerate(paths))]))
    with pytest.raises(ValueError, match="every image needs a cluster; 1 of 12 have none"):
        load_images(f"folder:{root}", cluster=str(table))
    with pytest.raises(ValueError, match=r"clusters are of the files of a folder .*; got photos, whose crops have"):
        load_images("photos", cluster="parent")
    with pytest.raises(ValueError, match="groups cannot be called cluster, as other columns are"):
        load_images(f"folder:{root}", groups=r"/(?P<cluster>p\d)/")
