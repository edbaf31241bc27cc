"""Check and announcement of a command's device, before anything is loaded."""

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
    """Check the device and name it on stderr, once, with the reason if an existing GPU is not used.

    Args:
        device: a name such as cuda:1 or cpu; None for the default.
        processes: whether the command can run in several processes (torchrun); it can if they have joined already.

    Raises:
        ValueError: torch cannot compute on this device, or there are several processes and the command supports one
            only.
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
    except (RuntimeError, AssertionError, ImportError) as error:  # the latter two if torch lacks the backend
        raise SettingError("device", f"{device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    _say_device(where)


@functools.cache
def _say_device(where: torch.device) -> None:
    """Name the device on stderr, with a GPU's own name, or the reason why torch cannot use an existing GPU."""
    import torch

    from mechvit.models.devices import unused_gpu

    about = torch.cuda.get_device_name(where) if where.type == "cuda" else unused_gpu()
    say(f"device: {where}{'' if about is None else f' ({about})'}", file=sys.stderr)
