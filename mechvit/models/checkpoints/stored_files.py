"""Readers of stored safetensors and JSON files that refuse damaged ones by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mechvit.files.reading import read_object as read_object


@contextmanager
def open_tensors(path: str | os.PathLike[str], device: str = "cpu") -> Iterator[Any]:
    """Open a safetensors file, as `safetensors.safe_open` does.

    Raises:
        ValueError: the file is missing, damaged or of another format, or lacks the requested tensor; names the file.
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


def invalid(where: str, name: str, must: str, got: object, file: str = "config.json") -> ValueError:
    """Return the error for an impossible setting in one of a checkpoint's files; `must` states the rule."""
    return ValueError(f"{where}: {name} of its {file} must {must}; got {got!r}. Correct it.")


def check_finite(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Raise a ValueError that names the file and the first tensor in it that holds NaN or infinity."""
    for name, tensor in tensors.items():
        # A sum is ten times as fast as isfinite, which writes a mask; an overflowing sum is infinite as well.
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
