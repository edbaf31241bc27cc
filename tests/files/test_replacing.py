"""What is refused, what is taken, and what is removed when a folder is written."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from mechvit import files
from mechvit.files.kinds import FOLDER_KINDS, OBLIGATORY, PROOFS
from mechvit.files.markers import mark
from mechvit.terminal import printable


def make(out: Path, kind: str = "analysis", text: str = "x", **options: object) -> None:
    with files.new_folder(out, kind, **{"flag": "--overwrite"} | options) as folder:
        files.write_text(folder / "performance.parquet", text)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_existing_results_are_kept_unless_told(tmp_path):
    out = tmp_path / "out"
    make(out, text="first")
    with pytest.raises(ValueError, match=r"out exists: .*--overwrite"):
        make(out)
    with files.new_folder(out, "analysis", overwrite=True) as folder:
        assert (out / "performance.parquet").read_text() == "first"  # the old one stays until the new one is whole
        files.write_text(folder / "performance.parquet", "second")
    assert (out / "performance.parquet").read_text() == "second"

    def fail() -> None:
        with files.new_folder(out, "analysis", overwrite=True) as folder:
            files.write_text(folder / "performance.parquet", "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (out / "performance.parquet").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("where", ["out", "out.partial", "out.replaced"])
@pytest.mark.parametrize("what", ["folder", "file", "link", "dangling link"])
def test_a_users_things_in_the_way_are_never_touched(tmp_path, where, what):
    path, elsewhere = tmp_path / "root" / where, tmp_path / "elsewhere"
    path.parent.mkdir()
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "thesis.txt").write_text("mine")
    if what == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    elif what == "file":
        path.write_text("mine")
    elif what == "link":
        path.symlink_to(elsewhere)
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = everything(tmp_path)
    out = tmp_path / "root" / "out"
    if (where, what) == ("out", "dangling link"):  # the folder that it names is made
        make(out)
        assert (tmp_path / "nowhere" / "performance.parquet").is_file()
        return
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"give another --out|is a file|is in the way"):
            make(out, overwrite=overwrite)
        assert everything(tmp_path) == before
        assert os.path.lexists(path)


def test_another_kind_is_never_replaced(tmp_path):
    make(tmp_path / "out", "evaluation")
    for kind in ("analysis", "robustness", "tables"):
        with pytest.raises(ValueError, match=re.escape("another kind of result (evaluation)")):
            make(tmp_path / "out", kind, overwrite=True)


def test_files_of_others_in_a_result_are_named_and_kept(tmp_path):
    out = tmp_path / "out"
    make(out)
    (out / "figures").mkdir()
    for name in ("notes.txt", "figures/mine.html", "performance.csv"):
        (out / name).write_text("mine")
    before = everything(out)
    with pytest.raises(ValueError, match=re.escape("(figures/mine.html, notes.txt, performance.csv)")):
        make(out, overwrite=True)
    assert everything(out) == before


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._x", "Thumbs.db", ".ipynb_checkpoints/n.ipynb", ".nfs01", "cache-1a2b.arrow", "desktop.ini"],
)
def test_litter_does_not_count(tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("")
    make(out, text="first")  # a folder with nothing but litter is empty, and the litter stays
    assert (out / name).is_file()
    make(out, text="second", overwrite=True)
    assert sorted(everything(out)) == [files.MARKER, "performance.parquet"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", [kind for kind, known in FOLDER_KINDS.items() if known and kind != "figures"])
def test_results_from_before_markers(tmp_path, kind):
    """Recognised by their whole known content; with one file more, left alone."""
    names = [pattern.replace("*", "one") for pattern in FOLDER_KINDS[kind] if pattern != "published/*"]
    for folder in ("known", "more"):
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            file, key = PROOFS.get(kind, ("", ""))
            (tmp_path / folder / name).write_text(f'{{"{key}": 1}}' if name == file else "old")
    (tmp_path / "more" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="known exists: give another --out, or --overwrite"):
        make(tmp_path / "known", kind)
    make(tmp_path / "known", kind, overwrite=True)
    assert sorted(everything(tmp_path / "known")) == [files.MARKER, "performance.parquet"]
    with pytest.raises(ValueError, match="more exists and is no earlier result of this kind"):
        make(tmp_path / "more", kind, overwrite=True)
    some = tmp_path / "some" / names[0]  # a file of a name that any program might give
    some.parent.mkdir(parents=True)
    some.write_text("mine")
    if OBLIGATORY.get(kind, 1) > 1:
        with pytest.raises(ValueError, match="no earlier result of this kind"):
            make(tmp_path / "some", kind, overwrite=True)
        assert some.read_text() == "mine"


@pytest.mark.long
def test_a_data_set_of_the_users_is_no_prepared_images(tmp_path):
    import datasets

    from mechvit.data import load_images, prepare

    datasets.Dataset.from_dict({"x": [1]}).save_to_disk(tmp_path / "mine")
    before = everything(tmp_path / "mine")
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    with pytest.raises(ValueError, match="no earlier result of this kind"):
        prepare(load_images("photos", "test", limit=2, image_size=16), processor, path=tmp_path / "mine")
    assert everything(tmp_path / "mine") == before


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


@pytest.mark.parametrize("edit", ["longer", "as long"])
def test_an_edited_file_of_ours_is_named_and_kept(tmp_path, edit):
    """What somebody wrote into a file of ours is theirs, whatever the file's name."""
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


def test_a_users_experiment_is_no_earlier_training(tmp_path):
    """Files of common names, in folders of their own, without a single SAE among them."""
    out = tmp_path / "exp"
    for name in ("settings.json", "metrics.csv", "history.parquet", "run1/README.md", "run2/cfg.json", "run2/w.txt"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    before = everything(out)
    with pytest.raises(ValueError, match="no earlier result of this kind"):
        make(out, "SAEs", overwrite=True)
    (out / "run2" / "w.txt").rename(out / "run2" / "sae_weights.safetensors")
    for text in ("{}", '{"streams": 1}'):  # README.md lies beside no SAE
        (out / "settings.json").write_text(text)
        with pytest.raises(ValueError, match="no earlier result of this kind"):
            make(out, "SAEs", overwrite=True)
    assert everything(out).keys() == {name.replace("w.txt", "sae_weights.safetensors") for name in before}


@pytest.mark.parametrize(("file", "key"), [*PROOFS.values()])
def test_a_file_of_a_common_name_proves_nothing_by_its_name(tmp_path, file, key):
    (kind,) = [kind for kind, proof in PROOFS.items() if proof == (file, key)]
    for name in (pattern.replace("*", "one") for pattern in FOLDER_KINDS[kind]):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("old")
    for text in ("{}", "[]", "damaged", f'["{key}"]'):
        (tmp_path / "out" / file).write_text(text)
        with pytest.raises(ValueError, match="no earlier result of this kind"):
            make(tmp_path / "out", kind, overwrite=True)


def test_what_is_written_into_a_whole_result_later_is_no_part_of_it(tmp_path):
    """As a page of another command: the result is not replaced with it."""
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


@pytest.mark.parametrize("name", ["notes", "figures/mine", "a/b/c"])
def test_an_empty_folder_of_the_users_is_theirs(tmp_path, name):
    out = tmp_path / "out"
    make(out)
    (out / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=re.escape(f"({name}/)")):
        make(out, overwrite=True)
    assert (out / name).is_dir()
    (out / name).rmdir()
    if name == "notes":
        make(out, overwrite=True)


def test_an_empty_folder_of_ours_is_ours(tmp_path):
    """What a library leaves, and what a killed process left before the first file in it."""
    for _ in range(2):
        with files.new_folder(tmp_path / "out", "analysis", overwrite=True) as folder:
            files.write_text(folder / "figures" / "a.html", "x")
            with files.library_writes(folder / "deep") as deep:
                (deep / "empty" / "below").mkdir(parents=True)
    (tmp_path / "out" / "figures" / "a.html").unlink()
    make(tmp_path / "out", overwrite=True)
    assert sorted(everything(tmp_path / "out")) == [files.MARKER, "performance.parquet"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [files.MARKER, "performance.parquet"]


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
    """As another user, without the right to remove what lies there."""
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


@pytest.mark.parametrize("name", ["._thesis/a.txt", "cache-mine.arrow/a.txt", ".nfs/a.txt", "x/desktop.ini/a.txt"])
def test_folders_that_are_called_like_litter_are_none(tmp_path, name):
    make(tmp_path / "out")
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(ValueError, match="holds files that mechvit did not write"):
        make(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / name).read_text() == "mine"


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
