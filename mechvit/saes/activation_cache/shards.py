"""Files of one shard: a folder of safetensors files, one per hook point and one for the images, written atomically."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from mechvit import files

from .manifest import DTYPES, Plan

ACTIVATIONS, IMAGES, RECORD_FILE = "activations", "images", "shard.json"
"""The tensor in a hook point's file, the images' file (`image_id`, `label`, `corruption`) and the checksums' file."""

_CODES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}  # safetensors' names


def file_name(name: str) -> str:
    """Return the file name of a hook point (or of the images)."""
    return f"{name}.safetensors"


def file_names(plan: Plan) -> set[str]:
    """Return the names of all files of a shard."""
    return {RECORD_FILE, file_name(IMAGES), *map(file_name, plan.hooks)}


def write_shard(
    cache: Path, plan: Plan, index: int, activations: Mapping[str, Tensor], images: Mapping[str, Tensor]
) -> None:
    """Write a shard under a temporary name, flush it to the disk, and rename it into place.

    Raises:
        OSError: writing failed, as on a full disk; the partial shard is removed, and finished ones stay.
    """
    final = cache / plan.shard(index)
    contents = {hook: {ACTIVATIONS: tensor} for hook, tensor in activations.items()} | {IMAGES: dict(images)}
    try:
        with files.whole_folder(final, file_names(plan)) as beside:
            checksums = {}
            for name, tensors in contents.items():
                data = save(tensors, metadata={"plan": plan.digest})
                files.write_synced(beside / file_name(name), data)
                checksums[file_name(name)] = hashlib.sha256(data).hexdigest()
            files.write_synced(beside / RECORD_FILE, json.dumps(checksums, indent=1).encode())
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise files.disk_full(cache, f"while {final.name} was written; the shards before it are whole") from error
        raise


def checksums_of(folder: Path) -> dict[str, str]:
    """Return the checksums recorded with a shard.

    Raises:
        ValueError: the record is missing or damaged.
    """
    try:
        return dict(json.loads((folder / RECORD_FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / RECORD_FILE} is missing or damaged ({error!r})") from error


def check_bytes(folder: Path, checksums: Mapping[str, str]) -> None:
    """Compare every file of a shard with its SHA-256.

    Raises:
        ValueError: a file differs; names the first.
    """
    for name, expected in checksums.items():
        if (found := files.sha256(folder / name)) != expected:
            raise ValueError(f"{folder / name} is damaged: its SHA-256 is {found}, not {expected}")


@dataclass(frozen=True)
class Header:
    """Place of a tensor in a safetensors file."""

    dtype: str
    """Type by its safetensors name, such as BF16."""
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte in the file."""
    plan: str
    """Digest of the plan of the cache that the file was written for; empty if none is recorded."""


def read_header(path: Path, tensor: str) -> Header:
    """Read the header of a safetensors file: 8 bytes of length, then JSON, then data.

    Raises:
        ValueError: the file is missing, truncated, or another kind of file.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                raise EOFError("the file ends within its header")
            found = json.loads(file.read(length))
        metadata = found.pop("__metadata__", {})
        end = 8 + length + max(about["data_offsets"][1] for about in found.values())
        about = found[tensor]
        header = Header(
            dtype=about["dtype"],
            shape=tuple(about["shape"]),
            start=8 + length + about["data_offsets"][0],
            plan=metadata.get("plan", ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise ValueError(f"{path} is truncated or no file of a cache ({error!r})") from error
    if size != end:
        raise ValueError(f"{path} has {size} bytes instead of the {end} of its header: it was truncated or extended")
    return header


def check_shard(cache: Path, plan: Plan, index: int) -> None:
    """Check a shard's files without reading their data.

    Raises:
        ValueError: a file (the first is named) is missing, unexpected, truncated, of another shape or type, or of
            another cache.
    """
    folder = cache / plan.shard(index)
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing")
    if foreign := {n.name for n in folder.iterdir() if not files.is_litter(n.name)} - file_names(plan):
        raise ValueError(f"{folder} holds foreign files: {', '.join(sorted(foreign))}")
    checksums_of(folder)
    n_images, n_rows = len(plan.images_of(index)), plan.rows_of(index)
    expected = {hook: (ACTIVATIONS, _CODES[plan.dtype], (n_rows, width)) for hook, width in plan.hooks.items()}
    for name, (tensor, dtype, shape) in {**expected, IMAGES: ("image_id", "I64", (n_images,))}.items():
        path = folder / file_name(name)
        header = read_header(path, tensor)
        if (header.dtype, header.shape) != (dtype, shape):
            raise ValueError(
                f"{path} is of another shape or type than the manifest says: {header.dtype} {list(header.shape)}, not "
                f"{dtype} {list(shape)}"
            )
        if header.plan != plan.digest:
            raise ValueError(f"{path} belongs to another cache (plan {header.plan or 'unknown'}, not {plan.digest})")


assert _CODES.keys() == DTYPES.keys()
