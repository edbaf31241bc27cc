"""Files that were written before, safetensors and JSON, read whole or refused by name."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


@contextmanager
def open_tensors(path: str | os.PathLike[str], device: str = "cpu") -> Iterator[Any]:
    """Open a safetensors file, as `safetensors.safe_open` does.

    Raises:
        ValueError: the file is missing, damaged or another kind of file, or lacks the tensor that is read; names it.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing: it must be a safetensors file")
    try:
        with safe_open(path, "pt", device=device) as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}): copy it again, or make it again"
        ) from error


def read_tensors(path: str | os.PathLike[str], device: str = "cpu") -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        ValueError: as `open_tensors`.
    """
    with open_tensors(path, device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


def read_object(path: str | os.PathLike[str], needed: Collection[str] = ()) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: no JSON, something else than an object, or one without the `needed` keys; names the file.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no JSON ({error}): copy it again, or make it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object; got {type(found).__name__}")
    if missing := [name for name in needed if name not in found]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: copy it again, or make it again")
    return found


def check_finite(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Raise a ValueError that names the file and the first tensor in it that holds NaN or infinity."""
    for name, tensor in tensors.items():
        # A sum is read ten times as fast as isfinite is written; it is infinite where it overflows, too.
        if (
            not tensor.is_floating_point()
            or tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)).isfinite()
        ):
            continue
        if bad := int((~tensor.isfinite()).sum()):
            raise ValueError(
                f"{path}: {name} holds {bad} values that are NaN or infinite, of {tensor.numel()}; the training that "
                "made it failed, or the file is damaged: use another one"
            )
