"""Groups of images: by folder, by an expression, by a table; what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mechvit.data import align_labels, group_columns, load_images, load_pictures, prepare


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes, two patients each, five pictures a patient: cat/p1/s0_0.png, ..."""
    for place, folder in enumerate(("cat/p1", "cat/p2", "dog/p3", "dog/p4")):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for i in range(5):
            pixels = np.random.default_rng(10 * place + i).integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / folder / f"s{i % 2}_{i}.png")
    return tmp_path / "set"


def grouped(root: Path, groups: str, column: str) -> dict[str, str | None]:
    """Path -> group of every image."""
    images = load_images(f"folder:{root}", groups=groups)
    return dict(zip(images["path"], images[column], strict=True))


def test_the_parent_folder_is_a_group(root):
    found = grouped(root, "parent", "parent")
    assert all(Path(path).parent.name == group for path, group in found.items())
    assert set(found.values()) == {"p1", "p2", "p3", "p4"}
    (root / "cat" / "p1" / "s0_0.png").rename(root / "cat" / "s0_0.png")
    assert grouped(root, "parent", "parent")["cat/s0_0.png"] == "cat"


def test_named_groups_of_an_expression_are_columns(root):
    images = load_images(f"folder:{root}", groups=r"/(?P<patient>p\d)/(?P<site>s\d)_")
    for row in images:
        _, patient, name = row["path"].split("/")
        assert (row["patient"], row["site"]) == (patient, name[:2])
    assert group_columns(images) == ["patient", "site"]


def test_a_table_gives_columns_by_path_or_name(root, tmp_path):
    table = tmp_path / "about.csv"
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    rows = [f"{path},{'north' if 'p1' in path or 'p3' in path else 'south'},{i}" for i, path in enumerate(paths)]
    table.write_text("\ufeffpath,site,scan\n" + "\n".join(rows) + "\n", encoding="utf-8")
    found = grouped(root, str(table), "site")
    assert {path: ("north" if path.split("/")[1] in ("p1", "p3") else "south") for path in paths} == found
    for place, path in enumerate(paths):
        (root / path).rename((root / path).parent / f"{place}.png")
    other = tmp_path / "about.tsv"
    other.write_text("\n".join(["file\tscan", *(f"{i}.png\t{i + 100}" for i in range(20))]))
    assert {Path(path).stem: scan for path, scan in grouped(root, str(other), "scan").items()} == {
        str(i): str(i + 100) for i in range(20)
    }


def test_rows_and_images_without_a_partner_are_named(root, tmp_path):
    table = tmp_path / "about.csv"
    table.write_text("path,site\ncat/p1/s0_0.png,north\n./cat/p1/s1_1.png,\nelk/1.png,south\n")
    with (
        pytest.warns(UserWarning, match=r"^rows of .*about.csv that name no image: 1 \(elk/1.png\)"),
        pytest.warns(UserWarning, match=r"^images that have no row in .*about.csv: 18 \(cat/p1/s0_2.png, "),
    ):
        found = grouped(root, str(table), "site")
    assert found.pop("cat/p1/s0_0.png") == "north"
    assert set(found.values()) == {None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("site\nnorth\n", "must have a column path or file and one column for each group"),
        ("path\ncat/p1/s0_0.png\n", "must have a column path or file and one column"),
        ("path,site,site\na,b,c\n", "must have a column"),
        ("path,label\ncat/p1/s0_0.png,x\n", "cannot be called label"),
        ("path,site\ncat/p1/s0_0.png,a\ncat/p1/s0_0.png,b\n", "has two rows for cat/p1/s0_0.png"),
        ("file,site\ns0_0.png,a\n", "s0_0.png names 4 images"),
        ("path,site\nx.png,a\n", "none of the 1 rows of .* names an image: its path is x.png, and the images are cat/"),
        ("path,site\ncat/p1/s0_0.png,a,b\n", "row 2 has 3 columns, and the first 2"),
        ("path,site\n", "has no row below"),
        ("", "its columns are none"),
    ],
)
def test_tables_that_do_not_fit_are_refused(root, tmp_path, text, message):
    (tmp_path / "about.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_images(f"folder:{root}", groups=str(tmp_path / "about.csv"))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("sites", "groups must be 'parent', a table"),
        ("(?P<site>[", "is no regular expression"),
        (r"(?P<site>s1)_", r"matches 8 of 20 images; not cat/p1/s0_0.png, cat/p1/s0_2.png, "),
        ("(?P<model>p)", "cannot be called model"),
        ("nowhere.csv", "the table nowhere.csv, and there is no such file"),
    ],
)
def test_groups_that_do_not_fit_are_refused(root, groups, message):
    with pytest.raises(ValueError, match=message):
        load_images(f"folder:{root}", groups=groups)
    with pytest.raises(ValueError, match="groups are of the files of a folder"):
        load_images("photos", limit=19, groups="parent")


def test_groups_stay_with_their_images(root, tiny_processor):
    images = load_images(f"folder:{root}", limit=7, groups="parent")
    prepared = prepare(align_labels(images, {0: "dog", 1: "cat"}), tiny_processor)
    assert group_columns(prepared) == ["parent"]
    assert [Path(path).parent.name for path in prepared["path"]] == prepared["parent"]


def test_single_pictures_have_groups_too(root):
    images = load_pictures(sorted(root.rglob("*.png")), groups="parent")
    assert set(images["parent"]) == {"p1", "p2", "p3", "p4"}
