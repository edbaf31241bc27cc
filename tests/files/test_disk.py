"""Full disks: recognised by the system's number, in an exception's field or in the message of a library without one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import SafetensorError

from mechvit import files
from mechvit.files.disk import DiskFull, disk_errors, error_number

FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (SafetensorError(FULL), errno.ENOSPC),
        (SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), errno.EFBIG),
        (type("ArrowInvalid", (ValueError,), {})("Detail: [errno 28] No space left on device"), errno.ENOSPC),
        (SafetensorError("Error while deserializing header: header too large"), None),
        (ValueError("os error 28"), None),  # no library's
        (OSError("no number"), None),
    ],
)
def test_the_system_s_number_is_found(error, number):
    assert error_number(error) == number


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), SafetensorError(FULL)])
def test_a_full_disk_names_the_file_and_other_errors_stay(error, tmp_path):
    said = rf"the disk of {tmp_path} is full while {tmp_path / 'a'} was written"
    with pytest.raises(DiskFull, match=said) as full, disk_errors(tmp_path / "a"):
        raise error
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(SafetensorError, match="too large"), disk_errors(tmp_path / "a"):
        raise SafetensorError("File too large (os error 27)")


def test_files_are_on_disk_before_they_have_their_names(tmp_path, monkeypatch):
    """So that a power cut leaves the old or the new; in the other tests `os.fsync` does nothing."""
    synced: set[int] = set()
    placed: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))

    def put(part, whole) -> None:
        assert Path(part).is_dir() or Path(part).stat().st_ino in synced, f"{whole} was not synced"
        placed.append(Path(whole).name)
        replace(part, whole)

    monkeypatch.setattr(os, "replace", put)
    with files.new_folder(tmp_path / "out", "analysis") as folder:
        files.write_table(folder / "table.parquet", pd.DataFrame({"a": [1]}))
        files.write_tensors(folder / "weights.safetensors", {"w": torch.zeros(2)})
        files.write_json(folder / "about.json", 1)
        files.write_text(folder / "notes.txt", "a")
    assert {"table.parquet", "weights.safetensors", "about.json", "notes.txt", files.MARKER, "out"} <= set(placed)
    assert tmp_path.stat().st_ino in synced, "the new folder's name"
