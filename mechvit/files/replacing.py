"""Replacement of a folder by a new one, so that neither is ever lost.

While a folder OUT is being written, these paths exist beside it:

    OUT.partial     the new result, until it is complete
    OUT.replaced    the earlier one, after it is moved aside and until it is removed
    .OUT.mechvit-lock    locked by the process that writes OUT, or by those that read it

A process may be killed at any point: the next one that opens OUT completes or undoes the replacement (`recover`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mechvit.terminal import say

from .disk import disk_errors, sync
from .hashes import edited, seen
from .locks import Lock
from .markers import adopt, begin, clear, foreign, is_litter, mark, note, read_marker, remove, remove_file, tree
from .output_checks import check_out, check_place, check_replaceable, few, is_free, partial, replaced

READY = "published"
"""Sub-folder of OUT.partial that becomes OUT if the rest of OUT.partial (checkpoints) does not belong to the result."""


@contextmanager
def new_folder(
    out: str | os.PathLike[str],
    kind: str,
    *,
    overwrite: bool = False,
    inputs: Collection[str | os.PathLike[str]] = (),
    flag: str = "overwrite",
) -> Iterator[Path]:
    """Yield a folder beside `out` to write into, which becomes `out` when the block ends, and is removed if it fails.

    Arguments and errors are those of `check_out`; a result that another process is writing is also refused.
    """
    place = check_place(out, kind, inputs, flag)
    with Lock(place):
        recover(place)
        check_out(place, kind, overwrite=overwrite, inputs=inputs, flag=flag)
        adopt(place, kind)
        remove(partial(place))
        part = partial(place)
        try:
            yield begin(part, kind)
            swap(part, place)
        except BaseException:
            if not _is_ready(part):  # otherwise the next process puts it in place
                remove(part)
            raise


@contextmanager
def whole_folder(final: Path, names: Collection[str]) -> Iterator[Path]:
    """Yield a folder beside `final`, within a marked folder, which replaces `final` when the block ends.

    Args:
        final: path of the folder, which may exist.
        names: names of the files that are written.

    Raises:
        ValueError: `final`, or the folder beside it, contains other files; names them.
    """
    part = partial(final)
    for path in (final, part):
        if others := [name for name in (tree(path) if path.is_dir() else []) if name not in names]:
            raise ValueError(f"{path} holds files that mechvit did not write ({few(others)}): move them away")
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
    """Remove an earlier result; it is renamed first, so that a partial result is never found in its place."""
    marker = read_marker(place)
    assert marker is not None, f"{place} has no marker"
    marker.aside = "removed"
    mark(place, marker)
    os.replace(place, replaced(place))
    remove(replaced(place))


def clear_result(place: Path) -> None:
    """Remove an earlier result and the beginnings of the next one, or a single file of this package.

    Raises:
        ValueError: either contains foreign files.
    """
    if not place.is_dir():
        remove_file(place)
        return
    for path in (place, partial(place)):
        check_replaceable(path)
        if read_marker(path) is not None:
            move_aside(path)


def seal(folder: Path, known: Mapping[str, str] | None = None, *, ready: bool = False) -> None:
    """Mark a folder as complete, with the size, mtime and SHA-256 of every file of this package.

    Args:
        known: known hashes by path in the folder, which are not computed again.
        ready: whether it is to be put in its place (`swap`).
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
    """Put a marked folder in its place: move the earlier one aside, rename the new one, remove the earlier one.

    Args:
        new: the new result, which counts as complete from here on.
        place: its final path, free or an earlier result.
    """
    with disk_errors(place):
        seal(new, ready=True)
        _put(new, place)


def recover(place: Path) -> None:
    """Finish an interrupted replacement: put the new result in place, or the earlier one back.

    Only folders whose marker records a replacement are touched: complete results of the user's at OUT.partial or
    OUT.replaced are kept.
    """
    old, there = replaced(place), read_marker(place)
    if there is not None and there.ready:  # killed just after it had been put in place
        there.ready = False
        mark(place, there)
    aside = read_marker(old)
    whole = next((new for new in (partial(place), partial(place) / READY) if _is_ready(new)), None)
    free = not place.is_dir() or is_free(place)
    if old.is_dir() and not any(old.iterdir()):  # killed just before it was removed
        old.rmdir()
    if aside is not None and aside.aside:
        if there is not None and there.id == aside.aside:
            remove(old)
        elif free and whole is None:
            aside.aside = ""
            mark(old, aside)
            _move(old, place)
    if whole is not None and (free or (there is not None and not foreign(place, there) and not edited(place, there))):
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
        say(f"{old} is left: it holds files that mechvit did not write ({few(kept)})", file=sys.stderr)


def _move(new: Path, place: Path) -> None:
    """Rename a folder to a path that is free or contains only litter, which moves into it."""
    if place.is_dir():
        for name in os.listdir(place):
            if not os.path.lexists(new / name):
                os.rename(place / name, new / name)
    os.replace(new, place)


def _is_ready(folder: Path) -> bool:
    marker = read_marker(folder)
    return marker is not None and marker.ready
