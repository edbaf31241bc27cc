"""Checks of an output's path, before anything is computed; they change nothing."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from mechvit.terminal import printable

from .hashes import edited
from .kinds import FOLDER_KINDS
from .markers import Marker, foreign, is_empty, listed, looks_like, marked_above, read_marker, tree

PARTIAL, REPLACED = ".partial", ".replaced"
_LONGEST_NAME = 200
"""Largest length of an output's name in bytes, which leaves room for prefixes and suffixes (file systems allow 255)."""


def out_folder(
    out: str | os.PathLike[str],
    inputs: Collection[str | os.PathLike[str]] = (),
    *,
    replaceable: bool = True,
    flag: str = "overwrite",
) -> Path:
    """Return the resolved path of an output folder, after the checks that do not depend on its content.

    Args:
        out: path of the folder, as the user named it.
        inputs: files and folders that are read; none may contain the output or lie in it.
        replaceable: whether the folder may be replaced as a whole, which is impossible for a mount point or the working
            directory.
        flag: see `check_out`.

    Raises:
        ValueError: the name is empty or holds control characters, the path is a file or a mount point, nothing can be
            written there, or it overlaps an input.
        TypeError: `out` is not a path.
    """
    if not isinstance(out, (str, os.PathLike)):
        raise TypeError(f"the output must be a folder's name; got {type(out).__name__}: {out!r}")
    if not os.fspath(out).strip():
        raise ValueError(f"the output{_option(flag)} must be a folder's name; got an empty one")
    if printable(out) != os.fspath(out):
        raise ValueError(f"the output's name holds control characters ({printable(out)}): give another {_out(flag)}")
    try:
        place = Path(out).expanduser().resolve()
        exists = os.path.lexists(place)
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, an unknown home, a null character
        raise ValueError(f"{out!r} cannot be an output folder: {error}") from error
    if os.path.islink(place):  # Python 3.13 and later do not raise for a circle
        raise ValueError(f"{out!r} cannot be an output folder: its links lead in a circle")
    if exists and not place.is_dir():
        raise ValueError(f"{out} is a file: name a folder")
    if place.name.endswith((PARTIAL, REPLACED)):
        raise ValueError(f"{out} ends in {place.suffix}, which is reserved for unfinished results: give another name")
    if replaceable and os.path.ismount(place):
        raise ValueError(
            f"{out} is a mount point, which cannot be replaced: name a folder inside it, as {place / 'result'}"
        )
    if replaceable and exists and Path.cwd().is_relative_to(place):
        raise ValueError(
            f"{out} is or contains the current folder, which cannot be replaced: name another, as {place / 'result'}"
        )
    if len(os.fsencode(place.name)) > _LONGEST_NAME:
        raise ValueError(f"the output's name has {len(os.fsencode(place.name))} bytes; at most {_LONGEST_NAME} fit")
    above = next(folder for folder in place.parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{out} cannot be created: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK) or (exists and not os.access(place, os.W_OK | os.X_OK)):
        raise ValueError(f"{out} cannot be written: no permission in {place if os.access(above, os.W_OK) else above}")
    for given in inputs:
        read = Path(given).expanduser().resolve()
        for own in (place, partial(place), replaced(place)):
            if _inside(own, read) or _inside(read, own):
                raise ValueError(
                    f"the output {out} and the input {given} must lie apart; they are the same, or one lies in the "
                    f"other: give another {_out(flag)}"
                )
    return place


def _out(flag: str) -> str:
    """Return the term for an output where it was named: an option of a command, or an argument."""
    return "--out" if flag.startswith("--") else "folder"


def _option(flag: str) -> str:
    return " (--out)" if flag.startswith("--") else ""


def _inside(inner: Path, outer: Path) -> bool:
    """Return whether a path equals another or lies below it, under whatever names (mounts, capitals)."""
    if inner == outer or outer in inner.parents:
        return True
    return outer.exists() and any(path.exists() and path.samefile(outer) for path in (inner, *inner.parents))


def partial(place: Path) -> Path:
    """Return the path where a new result is written."""
    return place.with_name(place.name + PARTIAL)


def replaced(place: Path) -> Path:
    """Return the path of the earlier result while it is replaced."""
    return place.with_name(place.name + REPLACED)


def check_out(
    out: str | os.PathLike[str],
    kind: str,
    *,
    overwrite: bool = False,
    inputs: Collection[str | os.PathLike[str]] = (),
    flag: str = "overwrite",
) -> Path:
    """Refuse an output that cannot be written without losing something; nothing is changed.

    Args:
        out: the folder to write.
        kind: kind of the result, one of `FOLDER_KINDS`; only a result of the same kind is ever replaced.
        overwrite: whether an earlier result may be replaced.
        inputs: see `out_folder`.
        flag: the option, or argument of a function, by which the user allows replacement.

    Returns:
        the path, with links resolved.

    Raises:
        ValueError: as in `out_folder`; or something at `out`, `out.partial` or `out.replaced` is no earlier result of
            this kind, or contains foreign or edited files (they are named).
    """
    place = check_place(out, kind, inputs, flag)
    for path in (place, partial(place), replaced(place)):
        check_replaceable(path, kind, flag=flag)
        if path != place and (found := read_marker(path)) and found.complete and not (found.ready or found.aside):
            raise ValueError(f"{path} is a finished result, and in the way: move it, or give another {_out(flag)}")
    if not overwrite and place.exists() and not is_free(place):
        raise ValueError(f"{out} exists: give another {_out(flag)}, or {flag} to replace it")
    return place


def check_place(
    out: str | os.PathLike[str], kind: str, inputs: Collection[str | os.PathLike[str]] = (), flag: str = "overwrite"
) -> Path:
    """Return `out_folder`, after checking the kind of result."""
    if kind not in FOLDER_KINDS:
        raise ValueError(f"a result must be one of {', '.join(FOLDER_KINDS)}; got {kind!r}")
    return out_folder(out, inputs, flag=flag)


def check_replaceable(path: Path, kind: str | None = None, *, whole: bool = True, flag: str = "overwrite") -> None:
    """Refuse to write over a file or folder that is not this package's.

    Args:
        path: the file or folder, which need not exist.
        kind: kind of the result that a folder must contain; any kind when None.
        whole: whether to refuse also a result with foreign or edited files, since it cannot be removed.
        flag: see `check_out`.

    Raises:
        ValueError: the path must not be replaced; says what it contains.
    """
    if not path.is_dir():
        if os.path.lexists(path) and (kind is not None or not listed(path)):
            raise ValueError(
                f"{path} is in the way, and was not written by mechvit: move it, or give another {_out(flag)}"
            )
        if _is_edited(path):
            raise ValueError(
                f"{path} was edited since mechvit wrote it: rename it to keep it, or give another {_out(flag)}"
            )
        return
    if is_free(path):
        return
    marker = read_marker(path)
    if marker is None and kind is not None and looks_like(path, FOLDER_KINDS[kind]):
        marker = Marker(kind, "", True, files={name: [] for name in tree(path)})
    if marker is None or marker.kind != (kind or marker.kind):
        of = "" if kind is None else f" of this kind ({kind})"
        what = f"no earlier result{of}" if marker is None else f"another kind of result ({marker.kind})"
        raise ValueError(f"{path} exists and is {what}: give another {_out(flag)}, or move it away")
    if not whole:
        return
    if names := foreign(path, marker):
        raise ValueError(
            f"{path} holds files that mechvit did not write ({few(names)}): move them away, or give another "
            f"{_out(flag)}"
        )
    if names := edited(path, marker):
        raise ValueError(
            f"{path} holds files that were edited since mechvit wrote them ({few(names)}): move them away, or give "
            f"another {_out(flag)}"
        )
    _check_removable(path, flag)


def _is_edited(path: Path) -> bool:
    """Return whether a single file of this package differs from what its marker recorded."""
    folder = marked_above(path)
    marker = None if folder is None else read_marker(folder)
    return folder is not None and marker is not None and path.relative_to(folder).as_posix() in edited(folder, marker)


def is_free(folder: Path) -> bool:
    """Return whether a folder is empty except for litter, and no begun result."""
    return is_empty(folder) and read_marker(folder) is None


def _check_removable(folder: Path, flag: str) -> None:
    """Refuse, before hours of work, a result that could not be moved or removed afterwards."""
    try:
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())):
            if os.path.ismount(path):
                raise ValueError(
                    f"{path} is a mount point, so that {folder} cannot be replaced: give another {_out(flag)}"
                )
            if not os.access(path, os.W_OK | os.X_OK):
                raise ValueError(f"{path} cannot be replaced: there is no permission to remove what it holds")
        about, above = folder.stat(), folder.parent.stat()
        if above.st_mode & 0o1000 and os.geteuid() not in (0, about.st_uid, above.st_uid):
            raise ValueError(f"{folder} belongs to somebody else, and cannot be replaced: give another {_out(flag)}")
        os.utime(folder, ns=(about.st_atime_ns, about.st_mtime_ns))  # fails if the folder cannot be changed at all
    except OSError as error:
        raise ValueError(f"{folder} cannot be replaced: {error.strerror}. Give another {_out(flag)}") from error


def few(names: Collection[str], most: int = 5) -> str:
    """Return the first few names, escaped for a terminal."""
    some = [printable(name) for name in sorted(names)]
    return ", ".join(some[:most]) + (f" and {len(some) - most} more" if len(some) > most else "")
