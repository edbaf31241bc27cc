"""Helpers of the tests of caches: a model's hook points and corruptions, numbered rows, and a folder's bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mechvit.data import Corruption
from mechvit.files import MARKER

CORRUPTIONS = (Corruption("gaussian_noise", 1), Corruption("gaussian_blur", 1), Corruption("gaussian_noise", 4))
HOOKS = ("blocks.1.hook_resid_post", "blocks.0.hook_mlp_out")


def numbered(rows: Tensor, hook: int, width: int) -> Tensor:
    """The values of a numbered cache at given rows: exact in float32 and, below 2,048 rows, in float16."""
    return rows[:, None] + 0.25 * hook + torch.zeros(width)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and its bytes, but for the marker, which holds times."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MARKER]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
