"""Devices: a GPU where torch can use one (under torchrun one per process), else the CPU, and the reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from mechvit.settings_checks import SettingError


def default_device() -> torch.device:
    """Return this process's CUDA device where torch can use one, else the CPU."""
    return device_named("cuda") if torch.cuda.is_available() else torch.device("cpu")


def device_named(name: torch.device | str | None) -> torch.device:
    """Return the device of a name such as cuda, cuda:1 or cpu; `default_device` for None.

    `cuda` without a number is the current GPU, and under torchrun that of the process's local rank, so that no two
    processes of a machine share one.

    Raises:
        RuntimeError: torch knows no such device.
    """
    if name is None:
        return default_device()
    device = torch.device(name)
    if device.type != "cuda" or device.index is not None or not torch.cuda.is_available():
        return device
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is None:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cuda", int(local_rank) % torch.cuda.device_count())


def device_of_process(name: torch.device | str | None, *, shared: bool = False) -> torch.device:
    """Return the device of one of torchrun's processes; without torchrun, as `device_named`.

    Args:
        name: cuda (one GPU per process) or cpu.
        shared: let several processes share a GPU where there are more of them.

    Raises:
        SettingError: a numbered GPU for several processes, or fewer GPUs than processes that cannot share one.
    """
    device, processes = device_named(name), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type != "cuda" or processes == 1:
        return device
    if name is not None and torch.device(name).index is not None:
        raise SettingError(
            "device", f"{name} would put all {processes} processes on one GPU: use cuda, which is one for each"
        )
    if processes > torch.cuda.device_count() and not shared:
        raise SettingError(
            "device", f"must be a GPU for each of the {processes} processes; {torch.cuda.device_count()} are visible"
        )
    return device


def unused_gpu() -> str | None:
    """Return the reason why torch uses none of this machine's GPUs; None where it uses them or there is none."""
    if torch.cuda.is_available():
        return None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU" if _shows_gpu() else None
    if not _shows_gpu():
        return None
    if torch.version.hip is None and torch.version.cuda is None:
        return f"a GPU is there, and this torch ({torch.__version__}) was built without CUDA: install a build with it"
    return (
        f"a GPU is there, and this torch ({torch.__version__}, CUDA {torch.version.cuda}) cannot use it{_reason()}: "
        "update the driver, or install a torch built for it"
    )


def _shows_gpu() -> bool:
    """Return whether the NVIDIA driver's files or devices show a GPU."""
    cards = Path("/proc/driver/nvidia/gpus")
    listed = cards.is_dir() and any(cards.iterdir())
    return (
        listed
        or any(Path("/dev").glob("nvidia[0-9]*"))
        or (Path("/dev/dxg").exists() and shutil.which("nvidia-smi") is not None)
    )


def _reason() -> str:
    """Return CUDA's own error when it cannot start, such as a driver that is too old; empty without one."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f" ({str(error).splitlines()[0].rstrip('.')})"
    return ""
