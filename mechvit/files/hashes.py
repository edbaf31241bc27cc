"""Detection of changed files by size, time and SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from .markers import Marker, is_litter, mark, note, read_marker, tree


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seen(path: Path, known: str | None = None) -> list[Any]:
    """Return size, mtime in ns and SHA-256 of a file; a known hash is not computed again."""
    about = path.stat()
    return [about.st_size, about.st_mtime_ns, known or sha256(path)]


def keep(path: Path) -> None:
    """Record a complete file's size, mtime and SHA-256 in the marker of its folder, by which edits are detected."""
    note(path, seen=seen(path))


def edited(folder: Path, marker: Marker) -> list[str]:
    """Return this package's files in a folder that differ from what its marker recorded.

    A file is read only if its size is the same and its time is not.
    """
    found = []
    for name, was in marker.files.items():
        path = folder / name
        if len(was) != 3 or not path.is_file() or is_litter(name):
            continue
        about = path.stat()
        if about.st_size != was[0] or (about.st_mtime_ns != was[1] and sha256(path) != was[2]):
            found.append(name)
    return found


def release(folder: Path) -> None:
    """Allow a marked folder to be replaced even if files in it were edited or damaged."""
    if (marker := read_marker(folder)) is not None:
        marker.files = {name: [] for name in marker.files}
        mark(folder, marker)


def describe(path: Path) -> dict[str, list[Any]]:
    """Return `seen` of a file, or of every file of this package in a folder, by path; known hashes are reused."""
    if not path.is_dir():
        return {"": seen(path)}
    marker = read_marker(path)
    found = {}
    for name in tree(path):
        if is_litter(name) or (marker is not None and not marker.lists(name)) or not (path / name).is_file():
            continue
        about, kept = (path / name).stat(), [] if marker is None else marker.files.get(name, [])
        found[name] = kept if kept[:2] == [about.st_size, about.st_mtime_ns] else seen(path / name)
    return found


def changed(path: Path, was: dict[str, list[Any]], *, verify: bool = False) -> str | None:
    """Return what differs from the result of `describe`, as one phrase with the file's name, or None.

    A file is read again only if its mtime differs, or with `verify`.
    """
    for name, (size, mtime, digest) in was.items():
        file = path / name if name else path
        try:
            about = file.stat()
            if about.st_size != size:
                return f"{file} has {about.st_size} bytes, and had {size}"
            if (verify or about.st_mtime_ns != mtime) and sha256(file) != digest:
                return f"{file} has other content than was written"
        except FileNotFoundError:
            return f"{file} is missing"
    return None
