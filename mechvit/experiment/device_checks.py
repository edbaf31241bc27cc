"""The device of a command: checked before anything is loaded, and said."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

from mechvit.settings_checks import SettingError
from mechvit.terminal import say

if TYPE_CHECKING:
    import torch


def check_device(device: str | None, *, processes: bool = False) -> None:
    """Say on stderr, once, where is computed, and why not on a GPU that is there.

    Args:
        device: as in cuda:1 or cpu; None means the default.
        processes: the command can run in several processes (torchrun); so it can where they have joined already.

    Raises:
        ValueError: torch cannot compute on this device here, or the command runs in one process and there are several.
    """
    import torch

    from mechvit.models.devices import device_named

    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not (processes or joined):
        raise ValueError("this command runs in one process: start it without torchrun")
    try:
        where = device_named(device)
        if (torch.ones(1, device=where) + 1).is_meta:
            raise RuntimeError("it holds shapes and no numbers")
    except (RuntimeError, AssertionError, ImportError) as error:  # AssertionError, ImportError: not built into torch
        raise SettingError("device", f"{device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    _say_device(where)


@functools.cache
def _say_device(where: torch.device) -> None:
    """Name the device on stderr, with a GPU's own name, or why torch can use no GPU that is there."""
    import torch

    from mechvit.models.devices import unused_gpu

    about = torch.cuda.get_device_name(where) if where.type == "cuda" else unused_gpu()
    say(f"device: {where}{'' if about is None else f' ({about})'}", file=sys.stderr)
