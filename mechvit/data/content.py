"""Hashes of a data set's content: of every id, label and pixel at once, computed once; and of each image's file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechvit import files

from .prepared import CONTENT, described_by, pixel_column, resized_by

if TYPE_CHECKING:
    import datasets

HASH = "sha256"
"""Column of a prepared set with the hash of each image's file."""
_CHUNK = 256
"""Images that are read at a time."""
_KNOWN: dict[str, str] = {}
"""Hashes that this process has computed."""


def images_fingerprint(images: datasets.Dataset, image_processor: Any = None) -> str:
    """Return the first 16 hex digits of a SHA-256 over every image's id, label and pixels as a model is shown them.

    Prepared images are hashed by the bytes of the model's own column, raw ones by the bytes of their files, wherever
    they are stored. `prepare` stores the hash with the set; any other set is read once per process, and again if the
    size or time of change of its files differs.

    Args:
        images: prepared or raw, with `image_id` and `label`.
        image_processor: the model's, which determines the column; needed where there are several columns.
    """
    column = pixel_column(images, image_processor) if resized_by(images) else "image"
    about = described_by(images).get(CONTENT)
    if about is not None and (about["of"], about["files"]) == (images._fingerprint, _arrow_files(images)):
        return str(about[column])
    key = json.dumps([images._fingerprint, column, _arrow_files(images), _picture_files(images, column)])
    if key not in _KNOWN:
        _KNOWN[key] = _hashed(images, column)
    return _KNOWN[key]


def picture_hashes(images: datasets.Dataset) -> list[str]:
    """Return 32 hex digits of the SHA-256 of each image's file, as prepared or read now.

    An image that has never been in a file is hashed by its encoding in `datasets`; one that is no picture there, by its
    array.
    """
    if HASH in images.column_names:
        return list(images[HASH])
    if not is_encoded(images):
        return [_digest(np.asarray(row["image"]).tobytes()) for row in images.select_columns(["image"])]
    rows = _undecoded(images)
    return [
        _digest(_bytes_of(row))
        for start in range(0, len(rows), _CHUNK)
        for row in rows[start : start + _CHUNK]["image"]
    ]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _bytes_of(row: dict[str, Any]) -> bytes:
    return row["bytes"] if row["bytes"] is not None else Path(row["path"]).read_bytes()


def record_content(folder: Path) -> None:
    """Write the hash of every column of a saved set into its `dataset_info.json`."""
    import datasets

    images = datasets.load_from_disk(folder)
    found: dict[str, Any] = {"of": images._fingerprint, "files": _arrow_files(images)}
    found |= {column: _hashed(images, column) for column in resized_by(images)}
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    info["description"] = json.dumps(described_by(images) | {CONTENT: found})
    files.write_text(path, json.dumps(info, indent=2, sort_keys=True))


def _hashed(images: datasets.Dataset, column: str) -> str:
    digest = hashlib.sha256(str(len(images)).encode())
    plain = images.with_format("numpy")
    for name in ("image_id", "label"):
        digest.update(np.asarray(plain[name][:], dtype=np.int64).tobytes())
    for part in _pictures(images, column):
        digest.update(part)
    return digest.hexdigest()[:16]


def _pictures(images: datasets.Dataset, column: str) -> Iterator[bytes]:
    """Yield the bytes of every image, in order; for raw ones also how they are to be decoded."""
    if column != "image":
        pixels = images.select_columns([column]).with_format("numpy")
        for start in range(0, len(images), _CHUNK):
            yield np.ascontiguousarray(pixels[start : start + _CHUNK][column], dtype=np.uint8).tobytes()
        return
    yield repr(getattr(images.features["image"], "pixel_range", None)).encode()
    for start in range(0, len(images), _CHUNK):
        for row in _undecoded(images)[start : start + _CHUNK]["image"]:
            yield hashlib.sha256(_bytes_of(row)).digest()


def _undecoded(images: datasets.Dataset) -> datasets.Dataset:
    import datasets

    return images.select_columns(["image"]).with_format(None).cast_column("image", datasets.Image(decode=False))


def _arrow_files(images: datasets.Dataset) -> list[list[Any]]:
    """Return name, size and time of change of the Arrow files that a set is mapped from; empty for a set in memory."""
    return [_seen(Path(file["filename"])) for file in images.cache_files]


def is_encoded(images: datasets.Dataset) -> bool:
    """Return whether a set's column `image` holds files or their bytes, as `datasets` stores pictures."""
    import pyarrow as pa

    return bool(pa.types.is_struct(images.data.column("image").type))


def _picture_files(images: datasets.Dataset, column: str) -> list[list[Any]]:
    """Return the same for the picture files that a raw set refers to."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column != "image" or not is_encoded(images):
        return []
    stored = pa.chunked_array(images.data.column("image"))
    named = stored.filter(pc.struct_field(stored, "bytes").is_null())
    return [_seen(Path(path)) for path in pc.struct_field(named, "path").to_pylist()]


def _seen(path: Path) -> list[Any]:
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]
