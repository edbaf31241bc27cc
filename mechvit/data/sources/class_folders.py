"""Image folders, with a sub-folder for each class or without classes: their files, with links followed."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from mechvit.files import is_litter
from mechvit.terminal import printable, progress_bar

from .class_names import as_text
from .folder_source import FolderSource, check_kinds, check_place, check_splits, visible_folders
from .picture import path_text

_HIDDEN_ON_WINDOWS = ("thumbs.db", "desktop.ini")
_RESOURCE_FORK = "._"
"""Start of the names of macOS's files beside others, which hold no picture whatever their suffix."""


def class_files(source: FolderSource, bad_files: Literal["error", "skip"]) -> tuple[list[str], list[tuple[int, Path]]]:
    """List the classes of an image folder, and the class and path of every visible file in it, in order.

    A folder without sub-folders has no classes, and its files the class -1.

    Raises:
        ValueError: no folder, no image in it, a system or home folder, sub-folders named like splits and not declared
            as classes, a class without files, a folder that two classes share, or a name that is not UTF-8 or a picture
            beside the class folders (for files: under `error` only).
    """
    root, shown = source.root, path_text(source.root)
    if not root.is_dir():
        raise ValueError(f"folder:{shown} is not a folder; give one with a sub-folder of images for each class")
    check_place(root)
    names = _in_order(visible_folders(root))
    if wrong := [path_text(name) for name in names if not _is_utf8(name)]:
        raise ValueError(f"{shown} has class folders whose names are not UTF-8: {', '.join(wrong)}; rename them")
    check_splits(root, names, source.classes)
    listed = [
        (label, path)
        for label, name in enumerate(progress_bar(names, "Listing class folders", delay=2, leave=False))
        for path in files_below(root / name)
    ]
    hidden = [_is_hidden(path.relative_to(root)) for _, path in listed]
    _check_left_out(source, [path for (_, path), left in zip(listed, hidden, strict=True) if left], bad_files)
    listed = [found for found, left in zip(listed, hidden, strict=True) if not left]
    listed = listed if names else [(-1, path) for path in _own_files(root)]
    if not listed:
        raise ValueError(
            f"{shown} has no images: it must hold a sub-folder for each class with its images in it, or images without "
            "labels"
        )
    deep = [path.relative_to(root).parts for _, path in listed]
    kinds = dict.fromkeys(parts[:2] for parts in deep if len(parts) > 2)
    check_kinds(root, [(name, kind) for name, kind in kinds], source.classes)
    if unknown := set(source.classes) - {*names, *(kind for _, kind in kinds)}:
        raise ValueError(f"{shown} has no folder {printable(', '.join(sorted(unknown)))}, which :class= names")
    filled = {label for label, _ in listed}
    if empty := [printable(name) for label, name in enumerate(names) if label not in filled]:
        raise ValueError(
            f"{shown} has {len(empty)} class folders without a file: {', '.join(empty[:5])}"
            f"{', ...' if len(empty) > 5 else ''}; put images into them, or remove them"
        )
    _check_apart(names, listed)
    unnamed = [path_text(path) for _, path in listed if not _is_utf8(os.fspath(path))]
    if unnamed and bad_files == "error":
        raise ValueError(
            f"{len(unnamed)} files have names that are not UTF-8: {'; '.join(unnamed[:5])}; rename them, or pass "
            "bad_files='skip' to leave such files out"
        )
    if unnamed:
        warnings.warn(
            f"left out {len(unnamed)} files whose names are not UTF-8: {'; '.join(unnamed[:5])}", stacklevel=4
        )
    return names, [(label, path) for label, path in listed if _is_utf8(os.fspath(path))]


def _own_files(folder: Path) -> list[Path]:
    """Return the visible files of a folder itself, sorted, including broken links."""
    return sorted(path for path in folder.iterdir() if not path.is_dir() and not _is_hidden(Path(path.name)))


def files_below(folder: Path) -> list[Path]:
    """Return every file below a folder, sorted, following links and including broken links to files.

    A folder is read once, even where several links lead to it; a link to an enclosing folder is ignored.

    Raises:
        OSError: a folder that cannot be read.
    """
    found: list[Path] = []
    real = os.path.realpath(folder)
    seen = {real}
    plain: deque[tuple[str, tuple[str, ...]]] = deque([(os.fspath(folder), (real,))])
    linked: deque[tuple[str, tuple[str, ...]]] = deque()
    while plain or linked:  # paths without links take precedence
        if plain:
            place, chain = plain.popleft()
        else:
            place, above = linked.popleft()
            real = os.path.realpath(place)
            if real in seen or any(held == real or held.startswith(real.rstrip(os.sep) + os.sep) for held in above):
                continue
            seen.add(real)
            chain = (*above, real)
        with os.scandir(place) as entries:
            for entry in entries:
                if not entry.is_dir():
                    if entry.is_file() or entry.is_symlink():
                        found.append(Path(entry.path))
                elif entry.is_symlink():
                    linked.append((entry.path, chain))
                elif (real := os.path.join(chain[-1], entry.name)) not in seen:
                    seen.add(real)
                    plain.append((entry.path, (*chain, real)))
    return sorted(found)


def fingerprint_folder(folder: Path) -> str:
    """Return a hash of a folder's names, sizes and modification times; links are followed, as when images are read."""
    found = [(os.fspath(path.relative_to(folder)), path.stat()) for path in files_below(folder) if path.is_file()]
    seen = [[name, about.st_size, about.st_mtime_ns] for name, about in found if not is_litter(name)]
    return hashlib.sha256(json.dumps(seen, separators=(",", ":")).encode()).hexdigest()


def _in_order(folders: list[str]) -> list[str]:
    """Return class folders in sorted order; numbers by value, so that 2 comes before 10."""
    if all(name.isdecimal() for name in folders):
        return sorted(folders, key=lambda name: (int(name), name))
    return sorted(folders, key=lambda name: (as_text(name), name))


def _check_apart(names: list[str], listed: list[tuple[int, Path]]) -> None:
    """Refuse a folder whose images belong to two classes, through links."""
    owner: dict[str, int] = {}
    for label, place in dict.fromkeys((label, path.parent) for label, path in listed):
        first = owner.setdefault(os.path.realpath(place), label)
        if first != label:
            raise ValueError(
                f"{path_text(place)} is the same folder as one of the class {printable(names[first])}: links give its "
                f"images to the classes {printable(names[first])} and {printable(names[label])}; remove one of them"
            )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_hidden(path: Path) -> bool:
    """Return whether a path below an image folder is hidden: `.x.png`, `.x/y.png`, `Thumbs.db`."""
    return any(part.startswith(".") for part in path.parts) or path.name.casefold() in _HIDDEN_ON_WINDOWS


def _check_left_out(source: FolderSource, hidden: Sequence[Path], bad_files: Literal["error", "skip"]) -> None:
    """Refuse pictures beside the class folders, which have no class; under `skip`, count them in a warning.

    Hidden pictures are counted in a warning, those directly in hidden folders beside the classes too.

    Args:
        source: the folder of class folders.
        hidden: hidden files below the class folders.
        bad_files: see `mechvit.data.load_images`.

    Raises:
        ValueError: pictures beside the class folders, under `error`.
    """
    root, shown = source.root, path_text(source.root)
    beside = sorted(root.iterdir())
    folders = [entry for entry in beside if entry.is_dir()]
    classes = [entry for entry in folders if not _is_hidden(Path(entry.name))]
    loose = [entry for entry in beside if not entry.is_dir() and _is_picture(entry)]
    private = [folder for folder in folders if folder not in classes and os.access(folder, os.R_OK | os.X_OK)]
    inside = [path for folder in private for path in sorted(folder.iterdir())]
    unseen = [path for path in (*loose, *inside, *hidden) if _is_hidden(path.relative_to(root)) and _is_picture(path)]
    if unseen:
        warnings.warn(f"left out {_counted(unseen, root, 'hidden picture')} of {shown}", stacklevel=5)
    loose = [path for path in loose if not _is_hidden(Path(path.name))]
    if not loose or not classes:
        return
    what = f"{_counted(loose, root, 'picture')} of {shown} beside its class folders, so in no class"
    if bad_files == "error":
        raise ValueError(
            f"there {'is' if len(loose) == 1 else 'are'} {what}: move them into the folders of their classes, or away, "
            "or pass bad_files='skip' to leave them out"
        )
    warnings.warn(f"left out {what}", stacklevel=5)


def _counted(paths: Sequence[Path], root: Path, what: str) -> str:
    """Return a count with the first names: `2 pictures (a.png, b.png)`."""
    names = ", ".join(path_text(path.relative_to(root)) for path in paths[:5]) + (", …" if len(paths) > 5 else "")
    return f"{len(paths)} {what}{'' if len(paths) == 1 else 's'} ({names})"


def _is_picture(path: Path) -> bool:
    """Return whether a file has the suffix of a format that Pillow reads."""
    suffix = os.path.splitext(path.name.removeprefix("."))[1].casefold()
    return suffix in _suffixes() and not path.name.startswith(_RESOURCE_FORK) and not path.is_dir()


@cache
def _suffixes() -> frozenset[str]:
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(suffix for suffix, name in known.items() if name in Image.OPEN)
