"""A folder that takes the place of an earlier one, so that neither is ever lost.

Beside a folder OUT lie, while it is being made:

    OUT.partial     the new result, until it is whole
    OUT.replaced    the earlier one, from when it is moved aside until it is removed
    .OUT.mechvit-lock    held by the process that writes OUT, or by those that read it

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
from .hashes import edited, seen
from .locks import locked
from .markers import adopt, begin, clear, foreign, is_litter, mark, note, read_marker, remove, remove_file, tree
from .output_checks import check_out, check_place, check_replaceable, few, is_free, partial, replaced

READY = "published"
"""A sub-folder of OUT.partial that becomes OUT, where the rest of OUT.partial (checkpoints) does not belong to the
result."""


@contextmanager
def new_folder(
    out: str | os.PathLike[str],
    kind: str,
    *,
    overwrite: bool = False,
    inputs: Collection[str | os.PathLike[str]] = (),
    flag: str = "overwrite",
) -> Iterator[Path]:
    """Give a folder beside `out` to write into; it becomes `out` when the block ends, and goes if the block fails.

    Arguments and errors are those of `check_out`; a result that another process is writing is refused too.
    """
    place = check_place(out, kind, inputs, flag)
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
    """Remove an earlier result: it is renamed first, so that no half of it is ever found in its place."""
    marker = read_marker(place)
    assert marker is not None, f"{place} has no marker"
    marker.aside = "removed"
    mark(place, marker)
    os.replace(place, replaced(place))
    remove(replaced(place))


def clear_result(place: Path) -> None:
    """Remove an earlier result of ours and what was begun of the next one, or a single file of ours.

    Raises:
        ValueError: either holds files that are not ours.
    """
    if not place.is_dir():
        remove_file(place)
        return
    for path in (place, partial(place)):
        check_replaceable(path)
        if read_marker(path) is not None:
            move_aside(path)


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
    free = not place.is_dir() or is_free(place)
    if old.is_dir() and not any(old.iterdir()):  # killed just before it was gone
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
    """Rename a folder to a place where there is none, or one with nothing but litter, which moves into it."""
    if place.is_dir():
        for name in os.listdir(place):
            if not os.path.lexists(new / name):
                os.rename(place / name, new / name)
    os.replace(new, place)


def _is_ready(folder: Path) -> bool:
    marker = read_marker(folder)
    return marker is not None and marker.ready
