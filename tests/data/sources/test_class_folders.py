"""Folders of classes: links followed once, no class without images, names that are not UTF-8."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mechvit.data import load_images
from mechvit.data.sources.class_folders import class_files, files_below, fingerprint_folder
from mechvit.data.sources.folder_source import FolderSource
from mechvit.data.sources.load import count_images

PARTS = ("finetune", "finetune_validation", "sae", "test")
NOT_UTF8 = b"caf\xe9".decode("utf-8", "surrogateescape")


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    for label, name in enumerate(["cat", "dog"]):
        for i in range(10):
            save(tmp_path / "images" / name / f"{i}.png", 100 * label + i)
    return tmp_path / "images"


def loaded(root: Path) -> list[tuple[str, str]]:
    """The class and the path below the root of every image of every part."""
    found = []
    for part in PARTS:
        images = load_images(f"folder:{root}", part)
        names = images.features["label"].names
        found += [(names[row["label"]], os.path.relpath(row["file"], root)) for row in images.remove_columns("image")]
    return sorted(found)


def test_linked_folders_and_files_are_images_of_their_class(root, tmp_path):
    plain = loaded(root)
    for i in range(3):
        save(tmp_path / "elsewhere" / "deep" / f"{i}.png", 50 + i)
    save(tmp_path / "one.png", 60)
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "one.png").symlink_to(tmp_path / "one.png")
    (root / "elk").symlink_to(tmp_path / "elsewhere2")
    for i in range(2):
        save(tmp_path / "elsewhere2" / f"{i}.png", 70 + i)
    added = [("cat", f"cat/more/deep/{i}.png") for i in range(3)] + [("dog", "dog/one.png")]
    assert loaded(root) == sorted(plain + added + [("elk", f"elk/{i}.png") for i in range(2)])


def test_loops_end_and_no_folder_is_read_twice(root, tmp_path):
    """Links to the folder itself, to those above it, back and forth, and twice to one place."""
    save(tmp_path / "other" / "a.png")
    links = {"self": ".", "above": "..", "top": "/", "first": tmp_path / "other", "second": tmp_path / "other"}
    for name, target in links.items():
        (root / "cat" / name).symlink_to(target)
    (tmp_path / "other" / "back").symlink_to(root / "cat")
    (root / "cat" / "plain").mkdir()
    save(root / "cat" / "plain" / "b.png")
    (root / "cat" / "a link to plain").symlink_to(root / "cat" / "plain")
    found = [path.relative_to(root / "cat").as_posix() for path in files_below(root / "cat")]
    assert found == sorted([*(f"{i}.png" for i in range(10)), "first/a.png", "plain/b.png"])


def test_files_are_sorted_as_paths_are(tmp_path):
    for name in ("b/1.png", "a/2.png", "a b/3.png", "a.png", "a/.hidden/4.png", "B.png"):
        save(tmp_path / name)
    assert files_below(tmp_path) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_a_folder_that_two_classes_share_is_refused(root):
    (root / "cats").symlink_to(root / "cat")
    with pytest.raises(ValueError, match=r"cats is the same folder as one of the class cat: .* cat and cats"):
        load_images(f"folder:{root}")
    (root / "cats").unlink()
    (root / "dog" / "also").symlink_to(root / "cat")
    with pytest.raises(ValueError, match=r"dog/also is the same folder as one of the class cat"):
        load_images(f"folder:{root}")


def test_classes_without_a_file_are_refused_by_name(root):
    (root / "elk").mkdir()
    (root / "fox" / "empty").mkdir(parents=True)
    (root / "gnu").mkdir()
    (root / "gnu" / ".hidden.png").write_bytes(b"")
    (root / ".git").mkdir()
    with (
        pytest.warns(UserWarning, match=r"left out 1 hidden picture \(gnu/.hidden.png\)"),
        pytest.raises(ValueError, match=r"has 3 class folders without a file: elk, fox, gnu; put images into them"),
    ):
        load_images(f"folder:{root}")


def test_names_in_messages_are_escaped(root):
    odd = "elk\x1b[31m"
    (root / odd).mkdir()
    with pytest.raises(ValueError, match=r"1 class folders without a file: elk\\x1b\[31m; put"):
        load_images(f"folder:{root}")
    (root / odd).rmdir()
    (root / odd).symlink_to(root / "dog")
    with pytest.raises(ValueError, match=r"elk\\x1b\[31m is the same folder .* dog and elk\\x1b\[31m; remove"):
        load_images(f"folder:{root}")
    (root / odd).unlink()
    save(root / odd / "0.png")
    (root / odd / "0.png").write_text("no picture")
    told = []
    for part in PARTS:
        for bad_files in ("skip", "error"):
            try:
                load_images(f"folder:{root}", part, bad_files=bad_files)
            except ValueError as error:
                told.append(str(error))
    assert len(told) == 2
    assert "no image of the class elk\\x1b[31m can be read" in told[0]
    assert "elk\\x1b[31m/0.png is not an image that Pillow reads, such as" in told[1]


def test_a_broken_link_is_a_bad_file(root):
    for name in ("cat", "dog"):
        for path in (root / name).iterdir():
            path.unlink()
            path.symlink_to(root / "nowhere.png")
    with pytest.raises(ValueError, match=r"png cannot be read \(No such file or directory\): .*; repair or remove it"):
        load_images(f"folder:{root}")


def test_a_folder_that_may_not_be_read_is_named(root):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (root / "cat" / "private").mkdir(mode=0)
    with pytest.raises(PermissionError, match="private"):
        load_images(f"folder:{root}")


def test_file_names_that_are_not_utf8_are_named_or_left_out(root):
    before = loaded(root)
    save(root / "cat" / "plain.png")
    (root / "cat" / "plain.png").rename(root / "cat" / f"{NOT_UTF8}.png")
    with pytest.raises(
        ValueError, match=r"1 files have names that are not UTF-8: .*cat/caf\\xe9.png; rename"
    ) as caught:
        load_images(f"folder:{root}")
    str(caught.value).encode()
    with pytest.warns(UserWarning, match=r"left out 1 files whose names are not UTF-8: .*caf\\xe9.png"):
        names, listed = class_files(FolderSource(root), "skip")
    assert sorted((names[label], os.path.relpath(path, root)) for label, path in listed) == before
    (root / NOT_UTF8).mkdir()
    for bad_files in ("error", "skip"):
        with pytest.raises(ValueError, match=r"class folders whose names are not UTF-8: caf\\xe9; rename them"):
            load_images(f"folder:{root}", bad_files=bad_files)


def test_a_run_s_fingerprint_sees_what_links_lead_to(root, tmp_path):
    save(tmp_path / "elsewhere" / "a.png")
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    before = fingerprint_folder(root)
    assert fingerprint_folder(root) == before
    save(tmp_path / "elsewhere" / "b.png")
    assert fingerprint_folder(root) != before


def test_pictures_beside_the_class_folders_are_refused_or_counted(root):
    plain = loaded(root)
    for name in ("notes.txt", "labels.csv"):
        (root / name).write_text("no picture")
    assert loaded(root) == plain
    for name in ("one.png", "two.JPG", "three.tiff"):
        save(root / name)
    for count in (class_files, lambda source, bad_files: count_images(f"folder:{source.root}", "test")):
        with pytest.raises(ValueError, match=r"are 3 pictures \(one.png, three.tiff, two.JPG\) of .* in no class"):
            count(FolderSource(root), "error")
    with pytest.warns(UserWarning, match=r"left out 3 pictures \(one.png, .*\) of .*/images beside its class folders"):
        names, listed = class_files(FolderSource(root), "skip")
    assert (names, len(listed)) == (["cat", "dog"], len(plain))


def test_hidden_pictures_are_counted_and_what_systems_leave_is_not(root, recwarn):
    plain = loaded(root)
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".notes.txt"):
        (root / "cat" / name).write_bytes(b"\0\5\x16\7")
        (root / name).write_bytes(b"\0\5\x16\7")
    (root / ".git").mkdir()
    (root / ".git" / "index").write_bytes(b"")
    (root / ".Trashes").mkdir(mode=0)
    assert loaded(root) == plain
    assert [str(found.message) for found in recwarn if "left out" in str(found.message)] == []
    for name in (".over.png", "cat/.kept.png", "dog/.old/1.png", ".elk/2.png"):
        save(root / name)
    with pytest.warns(UserWarning, match=r"left out 4 hidden pictures \(.over.png, .elk/2.png, cat/.kept.png, dog/"):
        names, listed = class_files(FolderSource(root), "error")
    assert (names, len(listed)) == (["cat", "dog"], len(plain))
