"""Places where no result can be written are refused first, by name, and a failed write leaves nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from written_results import everything, make

from mechvit import files
from mechvit.terminal import printable


@pytest.mark.parametrize(
    "out", ["", " ", "/", "/proc", "a\0b", "~nobody-of-that-name/x", "x" * 300, "a\nb", "a\x1b[31mb", "a\rb", "/proc/x"]
)
def test_places_that_cannot_be_written(out):
    with pytest.raises(ValueError, match=r"empty|mount point|cannot be|bytes|control characters") as no:
        make(out)
    assert printable(no.value) == str(no.value)


@pytest.mark.parametrize("out", [None, 3, ["x"], b"x"])
def test_what_is_no_path(out):
    with pytest.raises(TypeError, match="must be a folder's name; got"):
        make(out)


def test_an_unknown_kind(tmp_path):
    with pytest.raises(ValueError, match=r"must be one of .*analysis.*; got 'painting'"):
        make(tmp_path / "out", "painting")
    assert list(tmp_path.iterdir()) == []


def test_a_function_names_its_arguments_and_a_command_its_options(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    make(tmp_path / "out")
    made = [tmp_path / "mine", tmp_path / "out", tmp_path / "out" / "performance.parquet", "", "a\nb"]
    for out in made:
        with pytest.raises(ValueError) as no:  # noqa: PT011 (five messages)
            make(out, flag="overwrite")
        assert "--" not in str(no.value)


def test_the_folder_one_works_in(tmp_path, monkeypatch):
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    for out in (".", "..", tmp_path / "here"):
        with pytest.raises(ValueError, match="is or contains the current folder"):
            files.out_folder(out)
    make(Path("result"))
    assert (tmp_path / "here" / "below" / "result" / "performance.parquet").is_file()


def test_a_file_on_the_way(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(ValueError, match="is a file"):
            make(out)
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="cannot be an output folder"):
        make(tmp_path / "a")


def test_a_link_is_followed_once(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
    make(tmp_path / "out", text="first")
    make(tmp_path / "out", text="second", overwrite=True)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "real" / "performance.parquet").read_text() == "second"
    with files.new_folder(tmp_path / "out", "analysis", overwrite=True) as folder:
        (tmp_path / "out").unlink()
        (tmp_path / "out").symlink_to(tmp_path / "other")  # where it points meanwhile is of no account
        files.write_text(folder / "performance.parquet", "third")
    assert (tmp_path / "disk" / "real" / "performance.parquet").read_text() == "third"


@pytest.mark.parametrize(
    ("out", "read"),
    [
        ("data", "data"),
        ("data/out", "data"),
        (".", "data"),
        ("out", "out.partial"),
        ("out", "out.replaced/m"),
        ("out", "link/x"),
        ("link", "out"),
    ],
)
def test_inputs_and_outputs_lie_apart(tmp_path, out, read):
    for folder in ("data", "out.partial", "out.replaced/m", "out"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(ValueError, match="must lie apart"):
        files.out_folder(tmp_path / out, [tmp_path / read], replaceable=False)
    files.out_folder(tmp_path / "elsewhere", [tmp_path / read])


@pytest.mark.processes
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become somebody else")
def test_what_cannot_be_changed_is_refused_first(tmp_path):
    """Run as another user, without the right to remove the files there."""
    make(tmp_path / "out")
    make(tmp_path / "sticky" / "out")
    (tmp_path / "sticky").chmod(0o1777)
    (tmp_path / "free").mkdir()
    (tmp_path / "free").chmod(0o777)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for path in (tmp_path, *tmp_path.parents):
                if Path(tempfile.gettempdir()) in path.parents and path.stat().st_uid == 0:
                    path.chmod(0o755)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            for out in ("out", "new", "sticky/out"):
                with pytest.raises(ValueError, match=r"permission|somebody else"):
                    make(tmp_path / out, overwrite=True)
            make(tmp_path / "free" / "out")
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_full_disk_names_the_path_and_leaves_nothing(tmp_path, monkeypatch):
    out = tmp_path / "out"
    make(out, text="first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"the disk of .* is full while .*out.partial was written. Make room"):
        make(out, overwrite=True)
    monkeypatch.undo()
    assert everything(tmp_path) == {f"out/{name}": data for name, data in everything(out).items()}
    assert (out / "performance.parquet").read_text() == "first"


def test_lone_surrogates_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"page.txt cannot be written: '\\ud800' is half a character"):
        files.write_text(tmp_path / "page.txt", "a\ud800b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_ours_is_not_written_over(tmp_path):
    (tmp_path / "mine.json").write_text("mine")
    files.begin(tmp_path / "run", "views")
    (tmp_path / "run" / "mine.json").write_text("mine")
    for path in (tmp_path / "mine.json", tmp_path / "run" / "mine.json"):
        with pytest.raises(ValueError, match="was not written by mechvit"):
            files.write_json(path, 1)
        assert path.read_text() == "mine"
    with pytest.raises(ValueError, match="is a folder"):
        files.write_json(tmp_path / "run", 1)
