"""Full disks, and waiting until data are on disk."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Convert every writer's error on a full disk to an OSError that names the path."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise disk_full(place) from error
        raise
    except Exception as error:
        if type(error).__name__ in ("SafetensorError", "ArrowInvalid") and (
            "No space left" in str(error) or "os error 28" in str(error) or "quota" in str(error).lower()
        ):
            raise disk_full(place) from error
        raise


def is_full(error: OSError) -> bool:
    """Return whether an error means that the disk, or the user's quota on it, is full."""
    return error.errno in _FULL


def disk_full(place: Path, when: str | None = None) -> OSError:
    """Return the error for a full disk, with advice."""
    when = when or f"while {place} was written"
    return OSError(errno.ENOSPC, f"the disk of {place.parent} is full {when}. Make room and run the same command again")


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
