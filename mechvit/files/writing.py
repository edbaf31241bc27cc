"""Writing of single files: under a temporary name, flushed to disk, and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .disk import disk_errors, step, sync
from .locks import lives
from .markers import listed, note


@contextmanager
def beside(path: str | os.PathLike[str], *, ours: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, which is flushed to disk and renamed when the block ends.

    If the block fails, the temporary file is removed and `path` is unchanged. Leftovers of killed processes are
    removed. A link is followed: the file that it names is written.

    Args:
        path: path of the file; its folder is created if it does not exist.
        ours: function that tells whether an existing file may be replaced; by default, only a file that a marker lists.

    Raises:
        ValueError: the path is a folder, or an existing file that must not be replaced.
        OSError: the disk is full (names the path), or the system refuses for another reason.
    """
    place = Path(path)
    if place.is_symlink():
        place = place.resolve()
    if place.is_dir():
        raise ValueError(f"{place} is a folder: name a file")
    if os.path.lexists(place) and not (listed(place) if ours is None else ours(place)):
        raise ValueError(
            f"{place} exists and was not written by mechvit, or was edited since: name another file, or move it away"
        )
    with disk_errors(place):
        note(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        for left in place.parent.glob(f".{_literal(place.name)}.mechvit-*.part"):
            pid = left.name.removeprefix(f".{place.name}.mechvit-").removesuffix(".part")
            if pid.isdigit() and not lives(int(pid)):
                left.unlink(missing_ok=True)
        part = place.with_name(f".{place.name}.mechvit-{os.getpid()}.part")
        try:
            step("write", place)
            yield part
            sync(part)
            os.replace(part, place)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def write_bytes(path: str | os.PathLike[str], data: bytes, *, ours: Callable[[Path], bool] | None = None) -> None:
    """Write a file atomically; see `beside`."""
    with beside(path, ours=ours) as part:
        part.write_bytes(data)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file into a folder that is not in its place yet, and wait until it is on disk."""
    with disk_errors(path), path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: str | os.PathLike[str], text: str, *, ours: Callable[[Path], bool] | None = None) -> None:
    """Write a UTF-8 file atomically; see `beside`.

    Raises:
        ValueError: the text contains half of a surrogate pair, which no file can.
    """
    write_bytes(path, encoded(text, path), ours=ours)


def encoded(text: str, path: str | os.PathLike[str]) -> bytes:
    """Return a text as UTF-8.

    Raises:
        ValueError: it holds half of a surrogate pair; names the file that was to hold it.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{path} cannot be written: {error.object[error.start : error.end]!r} is half a character (a lone "
            "surrogate); correct that name or label"
        ) from None


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON; infinities are written as Python reads them."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_table(path: str | os.PathLike[str], frame: Any) -> None:
    """Write a pandas table as Parquet, without its index."""
    with beside(path) as part:
        frame.to_parquet(part, index=False)


def write_tables(folder: Path, tables: Mapping[str, Any]) -> None:
    """Write pandas tables as Parquet files of a folder, by name."""
    for name, frame in tables.items():
        write_table(folder / f"{name}.parquet", frame)


def write_tensors(path: str | os.PathLike[str], tensors: Any, metadata: dict[str, str] | None = None) -> None:
    """Write torch tensors as a safetensors file."""
    from safetensors.torch import save_file

    with beside(path) as part:
        save_file(tensors, part, metadata=metadata)


def _literal(name: str) -> str:
    """Escape a name's special characters for `glob`."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
