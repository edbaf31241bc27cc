"""Markers of folders: which kind of result a folder is, and which of its files were written by this package.

A folder that may ever be replaced holds a marker, `.mechvit.jsonl`. Only files that it lists are ever removed; a folder
without one, or with files that it does not list, stays as it is. A file is listed before it is written, so that what a
killed process leaves is known too.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .disk import disk_errors, is_full, step, sync
from .kinds import FOLDER_KINDS, OBLIGATORY

MARKER = ".mechvit.jsonl"
LITTER = (
    "cache-*.arrow",
    "Thumbs.db",
    "desktop.ini",
    ".DS_Store",
    "._*",
    ".directory",
    ".fuse_hidden*",
    ".nfs*",
)
LITTER_FOLDERS = (".ipynb_checkpoints", "__pycache__")
"""What systems and caches leave in any folder: removed with it, and never taken for a user's file."""


@dataclass
class Marker:
    """What a folder's marker says."""

    kind: str
    """Which kind of result, as in "analysis"."""
    id: str
    complete: bool = False
    ready: bool = False
    """Whole, and not in its place yet."""
    aside: str = ""
    """The id of the result that takes this one's place, once it is being replaced."""
    files: dict[str, list[Any]] = field(default_factory=dict)
    """Each file that was written, by its path in the folder: size, mtime in ns and SHA-256 once all are whole."""
    under: list[str] = field(default_factory=list)
    """Paths in the folder below which a library writes: all that lies there is ours."""

    def lists(self, name: str) -> bool:
        """Tell whether a file was written by us, or lies in what systems leave; so for an empty folder, `NAME/`."""
        own = name in self.files or any(not top or name == top or name.startswith(top + "/") for top in self.under)
        if name.endswith("/"):
            own = own or any(file.startswith(name) for file in (*self.files, *self.under))
        return own or is_litter(name)


def is_litter(name: str) -> bool:
    """Tell whether a path in a folder is what systems leave there, a marker, or half a file of a killed process."""
    last = name.rstrip("/").rpartition("/")[2]
    if last in (MARKER, f"{MARKER}.part") or re.fullmatch(r"\..+\.mechvit-\d+\.part", last):
        return True
    if any(part in LITTER_FOLDERS for part in name.split("/")):
        return True
    return any(fnmatch(last, pattern) for pattern in LITTER)


def is_empty(folder: Path) -> bool:
    """Tell whether nothing but litter lies in a folder."""
    return all(map(is_litter, os.listdir(folder)))


def read_marker(folder: Path) -> Marker | None:
    """Read a folder's marker; None where there is none. A line that a killed process cut off counts for nothing."""
    try:
        if (folder / MARKER).is_symlink():
            return None
        lines = (folder / MARKER).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    marker = None
    for line in lines:
        try:
            entry = json.loads(line)
            if marker is None:
                if entry["tool"] != "mechvit":
                    return None
                marker = Marker(str(entry["kind"]), str(entry["id"]), bool(entry.get("complete", False)))
                marker.ready, marker.aside = bool(entry.get("ready", False)), str(entry.get("aside", ""))
            elif "under" in entry:
                marker.under.append(str(entry["under"]))
            else:
                marker.files[str(entry["file"])] = list(entry.get("seen", []))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if marker is None:
                return None
    return marker


def mark(folder: Path, marker: Marker) -> None:
    """Write a folder's marker anew, whole."""
    head = {"tool": "mechvit", "kind": marker.kind, "id": marker.id, "complete": marker.complete}
    head |= ({"ready": True} if marker.ready else {}) | ({"aside": marker.aside} if marker.aside else {})
    entries: list[dict[str, Any]] = [head, *({"under": top} for top in marker.under)]
    entries += [{"file": name} | ({"seen": seen} if seen else {}) for name, seen in marker.files.items()]
    part = folder / f"{MARKER}.part"
    try:
        part.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
        sync(part)
        os.replace(part, folder / MARKER)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def begin(folder: Path, kind: str, *, under: Collection[str] = (), files: Collection[str] = ()) -> Path:
    """Make a folder with a marker, or mark one; what lies in it already is not ours, but for what is named.

    Raises:
        ValueError: the system lets no folder or file be made there.
        OSError: the disk is full.
    """
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mark(folder, Marker(kind, uuid.uuid4().hex[:12], files={name: [] for name in files}, under=list(under)))
        except OSError as error:
            if is_full(error):
                raise
            raise ValueError(f"{folder} cannot be written ({error.strerror}): name another place") from error
    return folder


def compact(folder: Path) -> None:
    """Write a folder's marker anew, with each file once."""
    marker = read_marker(folder)
    if marker is not None:
        kept = {name: seen for name, seen in marker.files.items() if os.path.lexists(folder / name)}
        marker.files = kept | {name: [] for name in tree(folder) if name.endswith("/") and marker.lists(name)}
        marker.under = list(dict.fromkeys(marker.under))
        mark(folder, marker)


def note(path: Path, *, under: bool = False, seen: list[Any] | None = None) -> None:
    """List a file (or all below a folder) in the marker of the nearest marked folder, before it is written.

    Args:
        seen: size, mtime and SHA-256 of a file that is whole.
    """
    if (found := marked_above(path / "file" if under else path)) is not None:
        name = path.relative_to(found).as_posix()
        entry = {"under" if under else "file": "" if name == "." else name} | ({"seen": seen} if seen else {})
        line = json.dumps(entry) + "\n"
        with (found / MARKER).open("a+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write((b"" if file.read() == b"\n" else b"\n") + line.encode())


@contextmanager
def library_writes(folder: Path) -> Iterator[Path]:
    """Let a library write files of its own naming into a folder: all that are new when the block ends are ours."""
    with disk_errors(folder):
        found = marked_above(folder / "file")
        marker, before = (None, set()) if found is None else (read_marker(found), set(tree(found)))
        note(folder, under=True)
        folder.mkdir(parents=True, exist_ok=True)
        step("library writes", folder)
        yield folder
        step("library wrote", folder)
        if found is not None and marker is not None:
            marker.files |= {name: [] for name in tree(found) if name not in before}
            mark(found, marker)


def foreign(folder: Path, marker: Marker) -> list[str]:
    """The files and empty folders in a folder that its marker does not list, and that are no litter."""
    return [name for name in tree(folder) if not marker.lists(name)]


def looks_like(folder: Path, known: Iterable[str], obligatory: int = 1) -> bool:
    """Tell whether an unmarked folder is an earlier result: nothing but known names, and all that each result has.

    Args:
        known: patterns of paths in the folder, such as `figures/*.html`.
        obligatory: how many of them, from the first, must be there.
    """
    known = list(known)
    names = [name for name in tree(folder) if not is_litter(name)]

    def fits(name: str, pattern: str) -> bool:
        return fnmatch(name, pattern) and name.count("/") == pattern.count("/")

    if not known or not all(any(fits(name, pattern) for name in names) for pattern in known[:obligatory]):
        return False
    return all(any(fits(name, pattern) for pattern in known) for name in names)


def adopt(folder: Path, kind: str, known: Iterable[str] | None = None) -> bool:
    """Mark an unmarked earlier result as ours, if it is one; tell whether it is marked now."""
    names, least = (FOLDER_KINDS[kind], OBLIGATORY.get(kind, 1)) if known is None else (known, 1)
    if read_marker(folder) is None and looks_like(folder, names, least):
        mark(folder, Marker(kind, uuid.uuid4().hex[:12], True, files={name: [] for name in tree(folder)}))
    return read_marker(folder) is not None


def remove_file(path: Path) -> None:
    """Remove a file of ours, if it is there; one that no marker lists stays."""
    if os.path.lexists(path) and listed(path):
        path.unlink()


def clear(folder: Path) -> None:
    """Remove a folder inside a marked one, as far as that marker lists what lies in it."""
    above = marked_above(folder / "file")
    marker = None if above is None else read_marker(above)
    if above is None or marker is None or not folder.is_dir():
        return
    _unlink(folder, [name for name in tree(folder) if marker.lists((folder / name).relative_to(above).as_posix())])
    if not any(folder.iterdir()):
        folder.rmdir()


def remove(folder: Path) -> list[str]:
    """Remove what a marked folder's marker lists, the marker last, and the folder if nothing is left.

    Returns:
        the files and empty folders that stayed, because they are not ours.
    """
    if not folder.is_dir():
        return []
    marker = read_marker(folder)
    if marker is None and not is_empty(folder):
        return tree(folder)
    marker = marker or Marker("", "")
    kept = foreign(folder, marker)
    _unlink(folder, [name for name in tree(folder) if marker.lists(name) and name != MARKER])
    if not kept:
        (folder / MARKER).unlink(missing_ok=True)
        folder.rmdir()
    return kept


def _unlink(folder: Path, names: Collection[str]) -> None:
    """Remove files and empty folders (`NAME/`) of a folder, and the folders that held them if nothing is left there."""
    held = {folder / name for name in names if name.endswith("/")}
    for name in names:
        if not name.endswith("/"):
            (folder / name).unlink(missing_ok=True)
        held.update(path for path in (folder / name).parents if folder in path.parents)
    for path in sorted(held, key=lambda path: len(path.parts), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def tree(folder: Path) -> list[str]:
    """The path of every file, link and empty folder (`NAME/`) below a folder, sorted; links are not followed."""
    found = []
    for top, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        found += [os.path.relpath(os.path.join(top, name), folder).replace(os.sep, "/") for name in (*files, *links)]
        if not files and not folders and Path(top) != Path(folder):
            found.append(os.path.relpath(top, folder).replace(os.sep, "/") + "/")
    return sorted(found)


def marked_above(path: Path) -> Path | None:
    """The nearest folder above a path that has a marker."""
    return next((folder for folder in list(path.parents)[:8] if (folder / MARKER).is_file()), None)


def listed(path: Path) -> bool:
    """Tell whether the nearest marked folder above a file lists it as ours."""
    folder = marked_above(path)
    marker = None if folder is None else read_marker(folder)
    return folder is not None and marker is not None and marker.lists(path.relative_to(folder).as_posix())
