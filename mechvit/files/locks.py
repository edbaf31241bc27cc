"""Locks on folders: one process writes a folder, or several read it.

The lock is an flock on a file `.NAME.mechvit-lock` beside the folder NAME (since the folder itself is renamed), so that
it ends with the process that holds it. The file lists its holders; it is removed when the last one releases it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import sys
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

_UNABLE = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS)
_held: set[int] = set()
_warned: set[str] = set()


def _let_go_after_fork() -> None:
    """Close a forked child's descriptors, which would keep the locks after the parent was killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_after_fork)


class Lock:
    """A lock that this process holds on a folder until `release`, the end of a `with` block, or garbage collection.

    Nothing is locked, silently, if nothing can be written beside the folder; and with one warning if the file system
    does not support locks.

    Args:
        place: the folder, which need not exist.
        shared: whether to lock for reading: others may read at the same time, and nobody may write.

    Raises:
        ValueError: another process (or another part of this one) holds the lock; names it.
    """

    def __init__(self, place: Path, *, shared: bool = False) -> None:
        self.place, self.shared = place, shared
        descriptor = _acquire(place, shared)
        self._end = weakref.finalize(self, _release, lock_file(place), descriptor, os.getpid())

    def release(self) -> None:
        """Release the folder."""
        self._end()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock_file(place: Path) -> Path:
    """Return the path of the file that is locked for a folder."""
    return place.with_name(f".{place.name}.mechvit-lock")


def _acquire(place: Path, shared: bool) -> int | None:
    """Return the open, locked file; None if there can be no lock."""
    try:
        import fcntl
    except ModuleNotFoundError:  # no POSIX system
        _warn(place, "this system has no flock")
        return None
    path = lock_file(place)
    while True:
        try:
            if not shared:
                path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # reading a folder whose parent is missing
            return None
        except OSError as error:
            if error.errno in _NO_PLACE:
                return None
            raise ValueError(f"{path} is needed to lock {place}, and cannot be opened: {error.strerror}") from error
        _held.add(descriptor)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if not _still_there(path, descriptor):  # the last holder removed it meanwhile
                _close(descriptor)
                continue
            _sign(descriptor, path, shared)
        except BlockingIOError:
            holders = _holders(descriptor)
            _close(descriptor)
            raise ValueError(f"{place} is in use by {_named(holders)}: wait until it has ended, or stop it") from None
        except OSError as error:
            _close(descriptor)
            if error.errno not in _UNABLE:
                raise
            _warn(place, f"its file system knows no locks ({error.strerror})")
            return None
        except BaseException:
            _close(descriptor)
            raise
        return descriptor


def _release(path: Path, descriptor: int | None, owner: int) -> None:
    """Unlock; the last holder removes the file."""
    if descriptor is None or os.getpid() != owner or descriptor not in _held:  # closed in a forked child
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _still_there(path, descriptor):
            path.unlink()
    except OSError:  # others read it
        pass
    _close(descriptor)


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int, path: Path, shared: bool) -> None:
    """Record this process as a holder; refuse a file that is no lock of this package."""
    text = os.pread(descriptor, 1 << 16, 0)
    if not all(_is_ours(line) for line in text.splitlines()):
        raise ValueError(f"{path} is no lock of mechvit: move it away")
    line = json.dumps({"tool": "mechvit", "host": socket.gethostname(), "pid": os.getpid(), "since": time.time()})
    if not shared:
        os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (line + "\n").encode(), len(text) if shared else 0)


def _is_ours(line: bytes) -> bool:
    try:
        return bool(json.loads(line)["tool"] == "mechvit")
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _holders(descriptor: int) -> list[dict[str, Any]]:
    """Return the recorded holders, except processes of this host that have ended."""
    found = []
    for line in os.pread(descriptor, 1 << 16, 0).decode("utf-8", "replace").splitlines():
        try:
            one = json.loads(line)
            if one["host"] != socket.gethostname() or lives(int(one["pid"])):
                found.append(one)
        except (ValueError, KeyError, TypeError):
            continue
    return found


def lives(pid: int) -> bool:
    """Return whether a process of this machine is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _named(holders: list[dict[str, Any]]) -> str:
    """Return the holders of a lock in words, for a message."""
    if not holders:
        return "another process"
    here = socket.gethostname()
    names = (
        "this process itself (close what reads it there)"
        if one["pid"] == os.getpid() and one["host"] == here
        else f"process {one['pid']}{'' if one['host'] == here else ' on ' + str(one['host'])} (since "
        f"{time.strftime('%H:%M:%S', time.localtime(one.get('since', 0)))})"
        for one in holders
    )
    return " and ".join(dict.fromkeys(names))


def _warn(place: Path, why: str) -> None:
    if why not in _warned:
        _warned.add(why)
        warnings.warn(f"{place} is not locked: {why}. Let no second process write there", stacklevel=4)


def end_with_parent() -> None:
    """End this process when its parent (torchrun's agent) ends, so that it does not continue writing alone.

    On systems other than Linux, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # the parent ended in between
        os.kill(os.getpid(), signal.SIGKILL)
