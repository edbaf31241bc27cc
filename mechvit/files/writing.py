"""One file at a time: written beside its place, brought to the disk, and renamed there."""

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
    """Give a path beside `path` to write to; it is brought to the disk and renamed there when the block ends.

    Where the block fails, what it wrote is removed and `path` is as before. Leftovers of killed processes are removed.
    A link is followed: the file that it names is written.

    Args:
        path: a file; its folder is made where it does not exist.
        ours: tells whether a file that lies there may be replaced. By default one in a marked folder may be replaced if
            the marker lists it, and no other.

    Raises:
        ValueError: a file lies there that is not to be replaced, or a folder.
        OSError: the disk is full, with the path; or anything else that the system refuses.
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
    """Write a whole file or nothing; see `beside`."""
    with beside(path, ours=ours) as part:
        part.write_bytes(data)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file into a folder that is not in its place yet, and wait until the disk has it."""
    with disk_errors(path), path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: str | os.PathLike[str], text: str, *, ours: Callable[[Path], bool] | None = None) -> None:
    """Write a whole UTF-8 file or nothing; see `beside`.

    Raises:
        ValueError: the text holds half of a surrogate pair, which no file can hold.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{path} cannot be written: {error.object[error.start : error.end]!r} is half a character (a lone "
            "surrogate); mend that name or label"
        ) from None
    with beside(path, ours=ours) as part:
        part.write_bytes(data)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as JSON, indented; infinities are kept, as Python reads and writes them."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_table(path: str | os.PathLike[str], frame: Any) -> None:
    """Write a pandas table as Parquet, without its index."""
    with beside(path) as part:
        frame.to_parquet(part, index=False)


def write_tables(folder: Path, tables: Mapping[str, Any]) -> None:
    """Write pandas tables as Parquet files of a folder, by their names."""
    for name, frame in tables.items():
        write_table(folder / f"{name}.parquet", frame)


def write_tensors(path: str | os.PathLike[str], tensors: Any, metadata: dict[str, str] | None = None) -> None:
    """Write torch tensors as a safetensors file."""
    from safetensors.torch import save_file

    with beside(path) as part:
        save_file(tensors, part, metadata=metadata)


def _literal(name: str) -> str:
    """A name with no pattern in it for `glob`."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
