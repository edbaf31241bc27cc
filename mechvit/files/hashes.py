"""Detection of changed files by size, time and SHA-256."""

from __future__ import annotations

import hashlib
import os
from itertools import count
from pathlib import Path
from typing import Any

from .markers import Marker, is_litter, note, read_marker, tree


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
        if _differs(path, was):
            found.append(name)
    return found


def keep_edited(path: Path, was: dict[str, list[Any]], aside: Path) -> list[Path]:
    """Move the files of an output that are no longer as they were written to a folder of their own.

    Args:
        path: a file, or a folder of ours.
        was: how `describe` found it; the folder's own marker counts, too.
        aside: gets the files, under numbered names where it holds such already.

    Returns:
        where they are now.
    """
    marker = read_marker(path)
    names = [] if marker is None else edited(path, marker)
    names += [name for name, seen in was.items() if name not in names and _differs(path / name if name else path, seen)]
    moved = []
    for name in names:
        source = path / name if name else path
        place = next(p for p in (aside / str(n) / (name or path.name) for n in count(1)) if not os.path.lexists(p))
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, place)
        moved.append(place)
    return moved


def _differs(file: Path, seen: list[Any]) -> bool:
    """Return whether a file is there and is not as it was; it is read only where its time alone differs."""
    if not file.is_file():
        return False
    about = file.stat()
    return bool(about.st_size != seen[0] or (about.st_mtime_ns != seen[1] and sha256(file) != seen[2]))


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
