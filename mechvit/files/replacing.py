"""A folder that takes the place of an earlier one, so that neither is ever lost.

Beside a folder OUT lie, while it is being made:

    OUT.partial     the new result, until it is whole
    OUT.replaced    the earlier one, from when it is moved aside until it is removed
    .OUT.lock       held by the process that writes OUT, or by those that read it

A process may be killed at any point: the next one that opens OUT ends what was begun (`recover`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mechvit.terminal import say

from .disk import disk_errors, sync
from .hashes import seen
from .kinds import KINDS, OBLIGATORY
from .locks import locked
from .markers import (
    Marker,
    adopt,
    begin,
    clear,
    foreign,
    is_empty,
    is_litter,
    listed,
    looks_like,
    mark,
    note,
    read_marker,
    remove,
    tree,
)

PARTIAL, REPLACED = ".partial", ".replaced"
READY = "published"
"""A sub-folder of OUT.partial that becomes OUT, where the rest of OUT.partial (checkpoints) does not belong to the
result."""
_LONGEST_NAME = 200
"""Bytes of an output's name, which leaves room for what is put before and behind it (file systems allow 255)."""


def out_folder(
    out: str | os.PathLike[str], inputs: Collection[str | os.PathLike[str]] = (), *, replaceable: bool = True
) -> Path:
    """The place of an output folder, with links resolved, after the checks that need no knowledge of what lies there.

    Args:
        out: as the user named it.
        inputs: files and folders that are read; none may lie in the output, and the output in none.
        replaceable: the folder as a whole may be replaced, which cannot be done with a mount point or the folder that
            one works in.

    Raises:
        ValueError: an empty name, a file, a mount point, a place where nothing can be written, or an overlap.
    """
    if not os.fspath(out).strip():
        raise ValueError("the output (--out) must be a folder's name; got an empty one")
    try:
        place = Path(out).expanduser().resolve()
        exists = os.path.lexists(place)
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, an unknown home, a null character
        raise ValueError(f"{out!r} cannot be an output folder: {error}") from error
    if exists and not place.is_dir():
        raise ValueError(f"{out} is a file: name a folder")
    if place.name.endswith((PARTIAL, REPLACED)):
        raise ValueError(f"{out} ends in {place.suffix}, which is kept for results in the making: give another name")
    if replaceable and os.path.ismount(place):
        raise ValueError(
            f"{out} is a mount point, which cannot be replaced: name a folder inside it, as {place / 'result'}"
        )
    if replaceable and exists and Path.cwd().is_relative_to(place):
        raise ValueError(
            f"{out} is the folder that you work in, which cannot be replaced: name another, as {place / 'result'}"
        )
    if len(os.fsencode(place.name)) > _LONGEST_NAME:
        raise ValueError(f"the output's name has {len(os.fsencode(place.name))} bytes; at most {_LONGEST_NAME} fit")
    above = next(folder for folder in place.parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{out} cannot be made: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK) or (exists and not os.access(place, os.W_OK | os.X_OK)):
        raise ValueError(f"{out} cannot be written: no permission in {place if os.access(above, os.W_OK) else above}")
    for given in inputs:
        read = Path(given).expanduser().resolve()
        for own in (place, partial(place), replaced(place)):
            if _inside(own, read) or _inside(read, own):
                raise ValueError(
                    f"the output {out} and the input {given} must lie apart; one lies in the other, or they are the "
                    "same: give another --out"
                )
    return place


def _inside(inner: Path, outer: Path) -> bool:
    """Tell whether a path is another, or lies below it, under whatever names (mounts, capitals)."""
    if inner == outer or outer in inner.parents:
        return True
    return outer.exists() and any(path.exists() and path.samefile(outer) for path in (inner, *inner.parents))


def partial(place: Path) -> Path:
    """Where a new result is made."""
    return place.with_name(place.name + PARTIAL)


def replaced(place: Path) -> Path:
    """Where the earlier result lies while it is replaced."""
    return place.with_name(place.name + REPLACED)


def check_out(
    out: str | os.PathLike[str],
    kind: str,
    *,
    overwrite: bool = False,
    inputs: Collection[str | os.PathLike[str]] = (),
    flag: str = "--overwrite",
) -> Path:
    """Refuse an output that cannot be written without losing something; changes nothing.

    Args:
        out: a folder that is to be written.
        kind: of the result, one of `KINDS`; only a result of the same kind is ever replaced.
        overwrite: allow to replace an earlier result.
        inputs: see `out_folder`.
        flag: what the user would give to replace a result.

    Returns:
        the place, with links resolved.

    Raises:
        ValueError: see `out_folder`; or something lies at `out`, at `out.partial` or at `out.replaced` that is no
            earlier result of this kind, or holds files that were not written by it (they are named).
    """
    place = out_folder(out, inputs)
    for path in (place, partial(place), replaced(place)):
        check_replaceable(path, kind)
        if path != place and (found := read_marker(path)) and found.complete and not (found.ready or found.aside):
            raise ValueError(f"{path} is a finished result, and in the way: move it, or give another --out")
    if not overwrite and place.exists() and not _is_free(place):
        other = "--out" if flag.startswith("--") else "folder"
        raise ValueError(f"{out} exists: give another {other}, or {flag} to replace it")
    return place


def check_replaceable(path: Path, kind: str | None = None, *, whole: bool = True) -> None:
    """Refuse to write over a file or folder that is not ours.

    Args:
        path: there may be nothing.
        kind: of the result that a folder must hold; any of ours when None.
        whole: refuse a folder of ours that holds files of somebody else, too, since it cannot be removed.

    Raises:
        ValueError: says what lies there.
    """
    if not path.is_dir():
        if os.path.lexists(path) and (kind is not None or not listed(path)):
            raise ValueError(f"{path} is in the way, and was not written by mechvit: move it, or give another --out")
        return
    if _is_free(path):
        return
    marker = read_marker(path)
    if marker is None and kind is not None and looks_like(path, KINDS[kind], OBLIGATORY.get(kind, 1)):
        marker = Marker(kind, "", True, files={name: [] for name in tree(path)})
    if marker is None or marker.kind != (kind or marker.kind):
        of = "" if kind is None else f" of this kind ({kind})"
        what = f"no earlier result{of}" if marker is None else f"another kind of result ({marker.kind})"
        raise ValueError(f"{path} exists and is {what}: give another --out, or move it away")
    if not whole:
        return
    if names := foreign(path, marker):
        raise ValueError(
            f"{path} holds files that mechvit did not write ({_few(names)}): move them away, or give another --out"
        )
    _check_removable(path)


def _is_free(folder: Path) -> bool:
    """Tell whether a folder is empty but for litter, and no begun result."""
    return is_empty(folder) and read_marker(folder) is None


@contextmanager
def new_folder(
    out: str | os.PathLike[str],
    kind: str,
    *,
    overwrite: bool = False,
    inputs: Collection[str | os.PathLike[str]] = (),
    flag: str = "--overwrite",
) -> Iterator[Path]:
    """Give a folder beside `out` to write into; it becomes `out` when the block ends, and goes if the block fails.

    Arguments and errors are those of `check_out`; a result that another process is writing is refused too.
    """
    place = out_folder(out, inputs)
    with locked(place):
        recover(place)
        check_out(place, kind, overwrite=overwrite, inputs=inputs, flag=flag)
        adopt(place, kind)
        remove(partial(place))
        part = partial(place)
        try:
            yield begin(part, kind)
            swap(part, place)
        except BaseException:
            if not _is_ready(part):  # else the next process puts it in place
                remove(part)
            raise


@contextmanager
def whole_folder(final: Path, names: Collection[str]) -> Iterator[Path]:
    """Within a marked folder: give a folder beside `final` to write into, which takes its place when the block ends.

    Args:
        final: there may be an earlier one.
        names: of the files that are written.

    Raises:
        ValueError: other files lie in `final`, or in the folder beside it: names them.
    """
    part = partial(final)
    for path in (final, part):
        if others := [name for name in (tree(path) if path.is_dir() else []) if name not in names]:
            raise ValueError(f"{path} holds files that mechvit did not write ({_few(others)}): move them away")
    with disk_errors(final):
        for path in (final / name for name in names):
            note(path)
            note(part / path.name)
        clear(part)
        part.mkdir(parents=True)
        try:
            yield part
            sync(part)
            clear(final)
            os.replace(part, final)
            sync(final.parent)
        except BaseException:
            clear(part)
            raise


def move_aside(place: Path) -> None:
    """Remove an earlier result: it is renamed first, so that no half of it is ever found in its place."""
    marker = read_marker(place)
    assert marker is not None, f"{place} has no marker"
    marker.aside = "removed"
    mark(place, marker)
    os.replace(place, replaced(place))
    remove(replaced(place))


def seal(folder: Path, known: Mapping[str, str] | None = None, *, ready: bool = False) -> None:
    """Mark a folder as whole, with the size, mtime and SHA-256 of every file of ours.

    Args:
        known: hashes that need not be taken again, by the file's path in the folder.
        ready: it is to be put in its place (`swap`).
    """
    marker = read_marker(folder)
    assert marker is not None, f"{folder} has no marker"
    own = [name for name in tree(folder) if marker.lists(name) and not is_litter(name)]
    marker.files = {
        name: seen(folder / name, (known or {}).get(name)) if (folder / name).is_file() else [] for name in own
    }
    marker.under, marker.complete, marker.ready = [], True, ready
    mark(folder, marker)


def swap(new: Path, place: Path) -> None:
    """Put a marked folder in its place: the earlier one is moved aside, the new one renamed, the earlier one removed.

    Args:
        new: what was written; from here on it counts as whole.
        place: where it belongs; empty, or an earlier result.
    """
    with disk_errors(place):
        seal(new, ready=True)
        _put(new, place)


def recover(place: Path) -> None:
    """End a replacement that was cut off: the new result is put in place, or the earlier one is put back.

    Only what a marker says was being replaced is touched: whole results of the user's own that happen to lie at
    OUT.partial or OUT.replaced stay.
    """
    old, there = replaced(place), read_marker(place)
    if there is not None and there.ready:  # killed just after it was put in place
        there.ready = False
        mark(place, there)
    aside = read_marker(old)
    whole = next((new for new in (partial(place), partial(place) / READY) if _is_ready(new)), None)
    free = not place.is_dir() or _is_free(place)
    if old.is_dir() and not any(old.iterdir()):  # killed just before it was gone
        old.rmdir()
    if aside is not None and aside.aside:
        if there is not None and there.id == aside.aside:
            remove(old)
        elif free and whole is None:
            aside.aside = ""
            mark(old, aside)
            _move(old, place)
    if whole is not None and (free or (there is not None and not foreign(place, there))):
        _put(whole, place)


def _put(new: Path, place: Path) -> None:
    """Put a ready result in its place."""
    marker, old, there = read_marker(new), replaced(place), read_marker(place)
    assert marker is not None
    if there is not None:
        there.aside = marker.id
        mark(place, there)
        os.rename(place, old)
    _move(new, place)
    marker.ready = False
    mark(place, marker)
    sync(place.parent)
    if kept := remove(old):
        say(f"{old} is left: it holds files that mechvit did not write ({_few(kept)})", file=sys.stderr)


def _move(new: Path, place: Path) -> None:
    """Rename a folder to a place where there is none, or one with nothing but litter, which moves into it."""
    if place.is_dir():
        for name in os.listdir(place):
            if not os.path.lexists(new / name):
                os.rename(place / name, new / name)
    os.replace(new, place)


def _is_ready(folder: Path) -> bool:
    marker = read_marker(folder)
    return marker is not None and marker.ready


def _check_removable(folder: Path) -> None:
    """Refuse, before hours of work, a result that could not be moved or removed afterwards."""
    try:
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())):
            if os.path.ismount(path):
                raise ValueError(f"{path} is a mount point, so that {folder} cannot be replaced: give another --out")
            if not os.access(path, os.W_OK | os.X_OK):
                raise ValueError(f"{path} cannot be replaced: there is no permission to remove what it holds")
        about, above = folder.stat(), folder.parent.stat()
        if above.st_mode & 0o1000 and os.geteuid() not in (0, about.st_uid, above.st_uid):
            raise ValueError(f"{folder} belongs to somebody else, and cannot be replaced: give another --out")
        os.utime(folder, ns=(about.st_atime_ns, about.st_mtime_ns))  # refused where the folder cannot be changed at all
    except OSError as error:
        raise ValueError(f"{folder} cannot be replaced: {error.strerror}. Give another --out") from error


def _few(names: Collection[str], most: int = 5) -> str:
    """The first few names, escaped for a terminal."""
    some = [name.encode("unicode_escape", "surrogatepass").decode() for name in sorted(names)]
    return ", ".join(some[:most]) + (f" and {len(some) - most} more" if len(some) > most else "")
