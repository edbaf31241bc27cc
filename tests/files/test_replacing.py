"""Earlier results are replaced only when asked, and only if all of their files are ours."""

from __future__ import annotations

import os
import re

import pytest
from written_results import everything, make

from mechvit import files
from mechvit.files.kinds import FOLDER_KINDS


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


@pytest.mark.parametrize("kind", [kind for kind, known in FOLDER_KINDS.items() if known.needed])
def test_results_from_before_markers(tmp_path, kind):
    """Recognised by their whole known content; with one file more, left alone."""
    needed, others, proof = FOLDER_KINDS[kind]
    names = [pattern.replace("*", "one") for pattern in needed + others]
    for folder in ("known", "more"):
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            file, key = proof or ("", "")
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
    if len(needed) > 1:
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


@pytest.mark.parametrize("kind", [kind for kind, known in FOLDER_KINDS.items() if known.proof])
def test_a_file_of_a_common_name_proves_nothing_by_its_name(tmp_path, kind):
    needed, others, (file, key) = FOLDER_KINDS[kind]
    for name in (pattern.replace("*", "one") for pattern in needed + others):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("old")
    for text in ("{}", "[]", "damaged", f'["{key}"]'):
        (tmp_path / "out" / file).write_text(text)
        with pytest.raises(ValueError, match="no earlier result of this kind"):
            make(tmp_path / "out", kind, overwrite=True)


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
    """Empty folders left by a library, and by a process killed before it wrote the first file."""
    for _ in range(2):
        with files.new_folder(tmp_path / "out", "analysis", overwrite=True) as folder:
            files.write_text(folder / "figures" / "a.html", "x")
            with files.library_writes(folder / "deep") as deep:
                (deep / "empty" / "below").mkdir(parents=True)
    (tmp_path / "out" / "figures" / "a.html").unlink()
    make(tmp_path / "out", overwrite=True)
    assert sorted(everything(tmp_path / "out")) == [files.MARKER, "performance.parquet"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [files.MARKER, "performance.parquet"]


@pytest.mark.parametrize("name", ["._thesis/a.txt", "cache-mine.arrow/a.txt", ".nfs/a.txt", "x/desktop.ini/a.txt"])
def test_folders_that_are_called_like_litter_are_none(tmp_path, name):
    make(tmp_path / "out")
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(ValueError, match="holds files that mechvit did not write"):
        make(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / name).read_text() == "mine"
