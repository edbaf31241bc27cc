"""Files that a user edited, added or copied are kept; markers that prove nothing free nothing."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from written_results import everything, make

from mechvit import files
from mechvit.files.markers import mark


@pytest.mark.parametrize("edit", ["longer", "as long"])
def test_an_edited_file_of_ours_is_named_and_kept(tmp_path, edit):
    """Edits by somebody else in a file of ours are theirs, whatever the file's name."""
    out = tmp_path / "out"
    make(out, text="first")
    file = out / "performance.parquet"
    file.write_text("mine!" if edit == "as long" else "first, with my notes")
    before = everything(out)
    with pytest.raises(ValueError, match=re.escape("were edited since mechvit wrote them (performance.parquet)")):
        make(out, overwrite=True)
    assert everything(out) == before
    kept = files.keep_edited(out, {}, tmp_path / "changed")  # what a run does with a changed output
    assert {path.relative_to(tmp_path): path.read_bytes() for path in kept} == {
        Path("changed/1/performance.parquet"): before["performance.parquet"]
    }
    make(out, text="second", overwrite=True)


def test_what_is_written_into_a_whole_result_later_is_no_part_of_it(tmp_path):
    """For example a page of another command, which is not replaced together with the result."""
    out = tmp_path / "out"
    make(out)
    files.write_signed(out / "page.html", "<p>mine</p>")
    with pytest.raises(ValueError, match=re.escape("(page.html)")):
        make(out, overwrite=True)
    assert (out / "page.html").is_file()


def test_a_copied_result_is_as_it_was_written(tmp_path):
    """A copy has other times and the same content."""
    make(tmp_path / "out", text="first")
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(tmp_path / "copy" / "performance.parquet", (1, 1))
    make(tmp_path / "copy", text="second", overwrite=True)
    assert (tmp_path / "copy" / "performance.parquet").read_text() == "second"


def test_an_edited_model_is_kept_by_save_pretrained(tmp_path, tiny_model):
    """It replaces an earlier model without being told to, as everywhere in the field, and an edited one never."""
    for _ in range(2):
        tiny_model.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "hooked_vit.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(
        FileExistsError, match=r"edited since mechvit wrote them \(hooked_vit.json\): .* another folder$"
    ):
        tiny_model.save_pretrained(tmp_path / "model")
    assert file.read_text().endswith("\n\n")


def test_a_half_file_goes_once_its_writer_is_gone(tmp_path):
    """Those of living processes, and a user's files of nearly such names, stay."""
    stays = [f".x.json.mechvit-{os.getppid()}.part", ".x.json.123.part", ".x.json.mechvit-a.part", "x.json.part"]
    for name in (*stays, ".x.json.mechvit-999999999.part"):
        (tmp_path / name).write_text("half")
    files.write_text(tmp_path / "x.json", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*stays, "x.json"])


@pytest.mark.parametrize("depth", [10**5])
def test_a_damaged_marker_is_no_marker(tmp_path, depth):
    make(tmp_path / "out")
    (tmp_path / "out" / files.MARKER).write_text("[" * depth)
    assert files.read_marker(tmp_path / "out") is None
    with pytest.raises(ValueError, match="no earlier result"):
        make(tmp_path / "out", "tables", overwrite=True)


def test_what_a_user_adds_while_it_is_made_is_kept(tmp_path):
    """It moves into place with the result, and is named when that would be replaced."""
    out = tmp_path / "out"
    with files.new_folder(out, "analysis") as folder:
        files.write_text(folder / "performance.parquet", "x")
        (folder / "notes.txt").write_text("mine")
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(ValueError, match=r"\(notes.txt\)"):
        make(out, overwrite=True)


def test_what_a_user_adds_to_a_failing_result_stays(tmp_path):
    def fail() -> None:
        with files.new_folder(tmp_path / "out", "analysis") as folder:
            files.write_text(folder / "performance.parquet", "x")
            (folder / "notes.txt").write_text("mine")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert set(everything(tmp_path)) == {f"out.partial/{files.MARKER}", "out.partial/notes.txt"}
    with pytest.raises(ValueError, match=r"out.partial holds files that mechvit did not write \(notes.txt\)"):
        make(tmp_path / "out")


def test_a_marker_from_elsewhere_frees_nothing(tmp_path):
    """A copied or forged marker lists names in its folder only; what else lies there stays."""
    make(tmp_path / "result")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    marker = (tmp_path / "result" / files.MARKER).read_text() + '{"file": "../precious"}\n{"under": ".."}\n'
    (tmp_path / "out" / files.MARKER).write_text(marker)
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"\(thesis.txt\)"):
        make(tmp_path / "out", overwrite=True)
    (tmp_path / "out" / "thesis.txt").unlink()
    make(tmp_path / "out", overwrite=True)
    assert (tmp_path / "precious").read_text() == "mine"


def test_links_in_a_result_are_removed_and_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.txt").write_text("mine")
    out = tmp_path / "out"
    with files.new_folder(out, "analysis") as folder, files.library_writes(folder):
        (folder / "latest").symlink_to(tmp_path / "elsewhere")
        (folder / "gone").symlink_to(tmp_path / "nowhere")
    make(out, overwrite=True)
    assert (tmp_path / "elsewhere" / "thesis.txt").read_text() == "mine"
    assert sorted(everything(out)) == [files.MARKER, "performance.parquet"]


def test_a_torn_marker_still_lists_what_comes_after(tmp_path):
    files.begin(tmp_path / "out", "views")
    with (tmp_path / "out" / files.MARKER).open("a") as file:
        file.write('{"file": "ha')  # cut off
    files.write_text(tmp_path / "out" / "one.json", "1")
    marker = files.read_marker(tmp_path / "out")
    assert marker is not None
    assert list(marker.files) == ["one.json"]
    assert files.foreign(tmp_path / "out", marker) == []


@pytest.mark.parametrize("suffix", [".partial", ".replaced"])
@pytest.mark.parametrize("there", [True, False])
def test_a_finished_result_of_such_a_name_is_never_touched(tmp_path, suffix, there):
    with pytest.raises(ValueError, match="reserved for unfinished results"):
        make(tmp_path / f"out{suffix}")
    make(tmp_path / "kept", text="kept")
    (tmp_path / "kept").rename(tmp_path / f"out{suffix}")  # a user's own way of keeping it
    if there:
        make(tmp_path / "b", text="there")
        (tmp_path / "b").rename(tmp_path / "out")
    before = everything(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"is a finished result, and in the way"):
            make(tmp_path / "out", overwrite=overwrite)
        assert everything(tmp_path) == before


def test_the_only_copy_is_kept_where_something_else_took_its_place(tmp_path):
    """Killed between the two renames; then the user puts a folder of their own there."""
    make(tmp_path / "out", text="only copy")
    marker = files.read_marker(tmp_path / "out")
    assert marker is not None
    marker.aside = "another"
    mark(tmp_path / "out", marker)
    (tmp_path / "out").rename(tmp_path / "out.replaced")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="no earlier result of this kind"):
        make(tmp_path / "out", overwrite=True)
    assert everything(tmp_path) == before
    (tmp_path / "out" / "mine.txt").unlink()
    with pytest.raises(ValueError, match="exists: give another --out"):
        make(tmp_path / "out")  # it is put back
    assert (tmp_path / "out" / "performance.parquet").read_text() == "only copy"


def test_a_users_file_in_a_part_is_refused(tmp_path):
    files.begin(tmp_path / "cache", "cached activations")
    for _ in range(2):
        with files.whole_folder(tmp_path / "cache" / "shard", ["a.bin"]) as part:
            files.write_synced(part / "a.bin", b"1")
    (tmp_path / "cache" / "shard" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"\(notes.txt\)"), files.whole_folder(tmp_path / "cache" / "shard", ["a.bin"]):
        pass
    assert (tmp_path / "cache" / "shard" / "notes.txt").read_text() == "mine"
