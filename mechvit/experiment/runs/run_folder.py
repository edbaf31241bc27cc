"""A run's folder: used by one process at a time, and only if it holds nothing foreign."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from mechvit.files import Lock, adopt, begin, compact, is_empty, out_folder, read_marker, remove
from mechvit.files.kinds import RUN_FILES, RUN_PARTS
from mechvit.settings_checks import SettingError


@contextmanager
def open_run(out: str | os.PathLike[str], kind: str, inputs: Collection[str | os.PathLike[str]] = ()) -> Iterator[Path]:
    """Lock a run's folder, new or begun earlier by the same command, and yield its resolved path.

    Args:
        out: path of the folder, as the user named it.
        kind: kind of the run, one of `mechvit.files.kinds.FOLDER_KINDS`.
        inputs: files and folders that the run reads; none may contain the run's folder or lie in it.

    Raises:
        ValueError: `out` cannot be written, overlaps an input, holds something else (or a page of the run that was
            edited), or another process uses it.
    """
    from mechvit.visualization.html_page.page import check_page

    place = out_folder(out, inputs, replaceable=False, flag="--out")
    with Lock(place):
        check_run(place, kind)
        if read_marker(place) is None:
            begin(place, kind)
        compact(place)
        for page in place.glob("*.html"):
            check_page(page)
        try:
            yield place
        except BaseException:
            if is_empty(place):  # refused before anything was written
                remove(place)
            raise


def check_run(place: Path, kind: str) -> None:
    """Refuse a folder that holds something other than a run of this kind; mark a run from before there were markers.

    Raises:
        ValueError: see `open_run`.
    """
    if not place.is_dir() or (is_empty(place) and read_marker(place) is None):
        return
    if read_marker(place) is None:
        _adopt_run(place, kind)
    marker = read_marker(place)
    if marker is None or marker.kind != kind:
        what = f"is no run of this kind ({kind})" if marker is None else f"is a {marker.kind}"
        raise SettingError("out", f"must be free or an earlier run; {place} {what}: give another, or move it away")


def _adopt_run(place: Path, kind: str) -> None:
    """Mark an earlier run as this package's, including those of its folders whose stage has a record."""
    stages = [name for name in map(_stage_of, sorted((place / "stages").glob("*.json"))) if name is not None]
    tests = any(name.startswith("test/") for name in stages) or (place / "transfer.html").is_file()
    if "base" not in stages or tests != (kind == "transfer between corruptions"):
        return
    for stage in stages:
        for begins, (folder, part, known) in RUN_PARTS.items():
            if stage == begins or (begins.endswith("/") and stage.startswith(begins)):
                path = place / (folder + stage.removeprefix(begins) if begins.endswith("/") else folder)
                if path.is_dir():
                    adopt(path, part, known)
    names = [path.relative_to(place).as_posix() for path in place.rglob("*")]
    own = {name for name in names if any(fnmatch(name, p) and name.count("/") == p.count("/") for p in RUN_FILES)}
    begin(place, kind, files=own)


def _stage_of(record: Path) -> str | None:
    """Return the name of the stage of a record; None if the file is no record, or that of another file's name."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        name, key = found["name"], found["key"]
        whole = isinstance(name, str) and re.fullmatch(r"[0-9a-f]{64}", key) and found["seconds"] >= 0
        return name if whole and record.name == f"{name.replace('/', '-')}.json" else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
