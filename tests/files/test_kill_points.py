"""A process that is killed before any write loses nothing, twice in a row, and the next one ends what was begun."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from kill_points import lay, points, runs, unharmed

from mechvit import files

AROUND = ("notes.txt", "out2/data.csv", "data/img/a.png", "out.partially", "out.backup/x", ".out.lockfile", "replaced")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != files.MARKER
    }


def write(out: Path, what: str, kind: str = "analysis") -> None:
    """A result with a file of each writer, and one that a library writes by itself."""
    with files.new_folder(out, kind, overwrite=True) as folder:
        files.write_table(folder / "performance.parquet", pd.DataFrame({"what": [what]}))
        files.write_tensors(folder / "sub" / "weights.safetensors", {"w": torch.tensor([float(len(what))])})
        files.write_json(folder / "about.json", {"what": what})
        with files.library_writes(folder / "library"):
            np.save(folder / "library" / "array.npy", np.array([len(what)]))


def written(out: Path) -> str | None:
    return pd.read_parquet(out / "performance.parquet")["what"][0] if out.is_dir() else None


@pytest.mark.long
@pytest.mark.processes
@pytest.mark.parametrize("first", [pytest.param(None, marks=pytest.mark.slow), "old"])
def test_a_folder_is_old_or_new_at_every_point(tmp_path, first):
    root, out = tmp_path / "root", tmp_path / "root" / "out"

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        if first is not None:
            write(out, first)

    count, seen = 0, set()
    for point in points(lambda: write(out, "newer"), root, fresh):
        mine = lay(root, AROUND)
        for _ in range(2):
            assert runs(lambda: write(out, "newer"), root, point) is None or _ == 1  # the second may have less to do
            assert unharmed(mine)
            now = written(out)
            if now is None and first is not None:
                assert written(files.replaced(out)) == first, "moved aside, and nothing else"
            seen.add(now)
        assert runs(lambda: write(out, "newer"), root, None) is not None
        assert written(out) == "newer"
        assert unharmed(mine)
        left = {path.name for path in root.iterdir()} - {Path(name).parts[0] for name in AROUND}
        assert left == {"out"}, "nothing is left beside it"
        assert set(contents(out)) == {
            "performance.parquet",
            "sub/weights.safetensors",
            "about.json",
            "library/array.npy",
        }
        count += 1
    assert count > 25
    assert {first, "newer"} <= seen


@pytest.mark.processes
def test_what_was_cut_off_is_ended_without_doing_it_again(tmp_path):
    """After the new result is whole, the next process puts it in place: hours of work are not done twice."""
    root, out = tmp_path / "root", tmp_path / "root" / "out"

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        write(out, "old")

    ended = 0
    for point in points(lambda: write(out, "newer"), root, fresh):
        runs(lambda: write(out, "newer"), root, point)
        marker = files.read_marker(files.partial(out))
        whole = marker is not None and marker.ready
        with files.Lock(out):
            files.recover(out)
        assert written(out) == ("newer" if whole or written(out) == "newer" else "old")
        assert not files.replaced(out).exists()
        ended += whole
    assert ended == 4, "before the old one is marked, before and after it is moved aside"


@pytest.mark.processes
def test_a_file_is_old_or_new_at_every_point(tmp_path):
    root = tmp_path / "root"

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        files.begin(root, "views")
        files.write_json(root / "state.json", 1)

    count = 0
    for point in points(lambda: files.write_json(root / "state.json", 2), root, fresh):
        mine = lay(root, ("state.json.bak", ".state.json.part"))
        for _ in range(2):
            runs(lambda: files.write_json(root / "state.json", 2), root, point)
            assert (root / "state.json").read_text() in ("1\n", "2\n")
        files.write_json(root / "state.json", 2)
        assert {path.name for path in root.iterdir()} == {
            files.MARKER,
            "state.json",
            "state.json.bak",
            ".state.json.part",
        }
        assert unharmed(mine)
        count += 1
    assert count >= 4


@pytest.mark.processes
def test_an_export_for_sae_lens_at_every_point(tmp_path):
    """A library that writes a cache of its own inside (datasets) leaves nothing that the next process cannot remove."""
    import datasets

    root, out = tmp_path / "root", tmp_path / "root" / "images"

    def work() -> None:
        rows = datasets.Dataset.from_dict({"x": [1, 2, 3]})
        with files.new_folder(out, "prepared images", overwrite=True) as folder, files.library_writes(folder):
            rows.save_to_disk(folder)

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()

    work()
    for point in points(work, root, fresh):
        mine = lay(root, AROUND)
        runs(work, root, point)
        work()
        assert datasets.load_from_disk(out)["x"] == [1, 2, 3]
        assert unharmed(mine)
