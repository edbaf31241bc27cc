"""Peak memory of a call, beyond what was allocated before."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

MMAP_THRESHOLD = -3
"""`M_MMAP_THRESHOLD` of malloc.h."""


def peak_extra(call: Callable[[], Any], device: str = "cpu") -> int:
    """Return the bytes that a call holds at its peak beyond those held before; the first call is not measured.

    On a CPU the process's resident memory is read (Linux), with every block of 64 KiB or more given back at once, so
    that what was freed does not count; on CUDA torch's own count.

    Raises:
        OSError: the system does not tell.
    """
    call()
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_THRESHOLD, 2**16)
    call()
    gc.collect()
    libc.malloc_trim(0)  # what was freed earlier is not resident any more, so that its use counts
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"/proc/self/status does not tell {name}; measure memory on Linux")
    return int(found[1]) * 1024
