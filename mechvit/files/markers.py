"""Markers of folders: the kind of result in a folder, and the list of its files that this package wrote.

Every folder that may be replaced contains a marker, `.mechvit.jsonl`. Only files that it lists are ever removed; a
folder without a marker, or with files that it does not list, is left unchanged. A file is listed before it is written,
so that files left by a killed process are known too.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .disk import disk_errors, is_full, step, sync
from .kinds import FOLDER_KINDS, Known

MARKER = ".mechvit.jsonl"
LITTER = ("cache-*.arrow", "Thumbs.db", "desktop.ini", ".DS_Store", "._*", ".directory", ".fuse_hidden*", ".nfs*")
LITTER_FOLDERS = (".ipynb_checkpoints", "__pycache__")
"""Files and folders that systems and caches leave anywhere: removed with a folder, never taken for a user's."""


@dataclass
class Marker:
    """Content of a folder's marker."""

    kind: str
    """Kind of result, as in "analysis"."""
    id: str
    complete: bool = False
    ready: bool = False
    """Whether the result is complete, but not in its place yet."""
    aside: str = ""
    """Id of the result that replaces this one, once it is being replaced."""
    files: dict[str, list[Any]] = field(default_factory=dict)
    """Written files by path in the folder: size, mtime in ns and SHA-256 once all are complete."""
    under: list[str] = field(default_factory=list)
    """Paths in the folder below which a library writes: everything below them counts as this package's."""

    def lists(self, name: str) -> bool:
        """Return whether a file, or an empty folder `NAME/`, was written by this package or is litter."""
        own = name in self.files or any(not top or name == top or name.startswith(top + "/") for top in self.under)
        if name.endswith("/"):
            own = own or any(file.startswith(name) for file in (*self.files, *self.under))
        return own or is_litter(name)


def is_litter(name: str) -> bool:
    """Return whether a path in a folder is system litter, a marker, or a partial file of a killed process."""
    last = name.rstrip("/").rpartition("/")[2]
    if last in (MARKER, f"{MARKER}.part") or re.fullmatch(r"\..+\.mechvit-\d+\.part", last):
        return True
    if any(part in LITTER_FOLDERS for part in name.split("/")):
        return True
    return any(fnmatch(last, pattern) for pattern in LITTER)


def is_empty(folder: Path) -> bool:
    """Return whether a folder contains nothing but litter."""
    return all(map(is_litter, os.listdir(folder)))


def read_marker(folder: Path) -> Marker | None:
    """Read a folder's marker; None if there is none. A line truncated by a killed process is ignored."""
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
    """Write a folder's marker anew, atomically."""
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
    """Create a marked folder, or mark an existing one, whose present content, except `files` and `under`, is foreign.

    Raises:
        ValueError: the system does not allow a folder or file there.
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
    """Rewrite a folder's marker, with each file once."""
    marker = read_marker(folder)
    if marker is not None:
        kept = {name: seen for name, seen in marker.files.items() if os.path.lexists(folder / name)}
        marker.files = kept | {name: [] for name in tree(folder) if name.endswith("/") and marker.lists(name)}
        marker.under = list(dict.fromkeys(marker.under))
        mark(folder, marker)


def note(path: Path, *, under: bool = False, seen: list[Any] | None = None) -> None:
    """List a file (or everything below a folder) in the marker of the nearest marked folder, before it is written.

    Args:
        seen: size, mtime and SHA-256 of a complete file.
    """
    found = marked_above(path / "file" if under else path)
    if found is not None and not _is_complete(found):
        name = path.relative_to(found).as_posix()
        entry = {"under" if under else "file": "" if name == "." else name} | ({"seen": seen} if seen else {})
        line = json.dumps(entry) + "\n"
        with (found / MARKER).open("a+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write((b"" if file.read() == b"\n" else b"\n") + line.encode())


def _is_complete(folder: Path) -> bool:
    """Return whether a marked folder is a whole result: what is written into it later is no part of it."""
    marker = read_marker(folder)
    return marker is not None and marker.complete


@contextmanager
def library_writes(folder: Path) -> Iterator[Path]:
    """Allow a library to write files under its own names into a folder; all new files count as this package's."""
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
    """Return the files and empty folders in a folder that its marker does not list and that are no litter."""
    return [name for name in tree(folder) if not marker.lists(name)]


def looks_like(folder: Path, known: Known) -> bool:
    """Return whether an unmarked folder is an earlier result: nothing but known names, and all that each result has."""
    names = [name for name in tree(folder) if not is_litter(name)]

    def fits(name: str, pattern: str) -> bool:
        return fnmatch(name, pattern) and name.count("/") == pattern.count("/")

    def has(pattern: str) -> bool:
        return any(fits(name, pattern) for name in names)

    if not known.needed or not all(map(has, known.needed)):
        return False
    for name in names:
        pattern = next((pattern for pattern in known.needed + known.others if fits(name, pattern)), None)
        if pattern is None:
            return False
        (above, _, _), (own, _, _) = pattern.rpartition("/"), name.rpartition("/")
        beside = [other.rpartition("/")[2] for other in known.needed if other.rpartition("/")[0] == above]
        if "*" in above and not all(has(f"{own}/{other}") for other in beside):
            return False
    return known.proof is None or _holds(folder / known.proof[0], known.proof[1])


def _holds(path: Path, key: str) -> bool:
    """Return whether a file is a JSON object with a key."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and key in found


def adopt(folder: Path, kind: str, known: Known | None = None) -> bool:
    """Mark an unmarked folder if it is an earlier result; return whether it is marked now."""
    if read_marker(folder) is None and looks_like(folder, known or FOLDER_KINDS[kind]):
        mark(folder, Marker(kind, uuid.uuid4().hex[:12], True, files={name: [] for name in tree(folder)}))
    return read_marker(folder) is not None


def remove_file(path: Path) -> None:
    """Remove a file if a marker lists it."""
    if os.path.lexists(path) and listed(path):
        path.unlink()


def clear(folder: Path) -> None:
    """Remove those parts of a folder inside a marked one that the marker lists."""
    above = marked_above(folder / "file")
    marker = None if above is None else read_marker(above)
    if above is None or marker is None or not folder.is_dir():
        return
    _unlink(folder, [name for name in tree(folder) if marker.lists((folder / name).relative_to(above).as_posix())])
    if not any(folder.iterdir()):
        folder.rmdir()


def remove(folder: Path) -> list[str]:
    """Remove everything that a marked folder's marker lists, the marker last, and the folder if nothing is left.

    Returns:
        the files and empty folders that remain because they are foreign.
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
    """Remove files and empty folders (`NAME/`) of a folder, and their parent folders if these become empty."""
    held = {folder / name for name in names if name.endswith("/")}
    for name in names:
        if not name.endswith("/"):
            (folder / name).unlink(missing_ok=True)
        held.update(path for path in (folder / name).parents if folder in path.parents)
    for path in sorted(held, key=lambda path: len(path.parts), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def tree(folder: Path) -> list[str]:
    """Return the path of every file, link and empty folder (`NAME/`) below a folder, sorted; links are not followed."""
    found = []
    for top, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        found += [os.path.relpath(os.path.join(top, name), folder).replace(os.sep, "/") for name in (*files, *links)]
        if not files and not folders and Path(top) != Path(folder):
            found.append(os.path.relpath(top, folder).replace(os.sep, "/") + "/")
    return sorted(found)


def marked_above(path: Path) -> Path | None:
    """Return the nearest folder above a path that has a marker."""
    return next((folder for folder in list(path.parents)[:8] if (folder / MARKER).is_file()), None)


def listed(path: Path) -> bool:
    """Return whether the nearest marked folder above a file lists it."""
    folder = marked_above(path)
    marker = None if folder is None else read_marker(folder)
    return folder is not None and marker is not None and marker.lists(path.relative_to(folder).as_posix())
