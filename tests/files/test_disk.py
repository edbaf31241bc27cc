"""Full disks: recognised by the system's number, in an exception's field or in the message of a library without one."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

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
