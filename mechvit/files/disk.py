"""Full disks, and waiting until data are on disk."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_IN_TEXT = re.compile(r"(?:os error |\[errno )(\d+)", re.I)
"""The system's number of an error as Rust and Arrow write it into their messages, which have no field for it."""


class DiskFull(OSError):
    """A full disk, in words that name the place and advise."""


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Convert every writer's error on a full disk to an OSError that names the path."""
    try:
        yield
    except Exception as error:
        if is_full(error):
            raise disk_full(place) from error
        raise


def error_number(error: BaseException) -> int | None:
    """Return the operating system's number of an error, also for libraries that state it in their message only."""
    if isinstance(error, OSError):
        return error.errno
    if type(error).__name__ in ("SafetensorError", "ArrowInvalid") and (found := _IN_TEXT.search(str(error))):
        return int(found[1])
    return None


def is_full(error: BaseException) -> bool:
    """Return whether an error means that the disk, or the user's quota on it, is full."""
    return error_number(error) in _FULL


def disk_full(place: Path, when: str | None = None) -> DiskFull:
    """Return the error for a full disk, with advice."""
    when = when or f"while {place} was written"
    return DiskFull(
        errno.ENOSPC, f"the disk of {place.parent} is full {when}. Make room and run the same command again"
    )


def sync(path: Path) -> None:
    """Wait until a file, or a folder's names, are on disk, if the system can sync them."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def step(what: str, path: Path) -> None:
    """Raise the audit event `mechvit.files`, so that a test can detect writes by libraries without one."""
    sys.audit("mechvit.files", what, os.fspath(path))
