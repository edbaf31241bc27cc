"""Killing a function in a forked process before each of its writes, and a tree of a user's files that must survive."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "mechvit.files"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def runs(work: Callable[[], object], root: Path, kill_at: int | None) -> int | None:
    """Run `work` in a forked process that kills itself before its `kill_at`-th write below `root`.

    Returns:
        how many writes there were, or None if it was killed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            counted = [0]

            def watch(event: str, arguments: tuple[object, ...]) -> None:
                if event == "open":
                    path, _, flags = arguments
                    if not isinstance(flags, int) or not flags & _WRITING:
                        return
                elif event not in EVENTS:
                    return
                else:
                    path = arguments[1] if event == "mechvit.files" else arguments[0]
                if not isinstance(path, (str, bytes, os.PathLike)) or not os.fsdecode(path).startswith(str(root)):
                    return
                counted[0] += 1
                if counted[0] == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(watch)
            work()
            os.write(writer, str(counted[0]).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    assert os.waitstatus_to_exitcode(status) == 0, "the work failed; see its traceback above"
    return int(said)


def points(work: Callable[[], object], root: Path, fresh: Callable[[], None]) -> Iterator[int]:
    """Every point at which `work` can be killed; before each, `fresh` lays what was there at the start."""
    fresh()
    total = runs(work, root, None)
    assert total is not None
    for point in range(1, total + 1):
        fresh()
        yield point


def lay(root: Path, names: tuple[str, ...]) -> dict[Path, str]:
    """Write a user's files; returns their SHA-256."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"the user's own {name}")
    return {root / name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in names}


def unharmed(files: dict[Path, str]) -> bool:
    """Return whether all of a user's files are as they were."""
    return all(path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == was for path, was in files.items())
