"""Triton where it is installed. Kernel files import without it, and then run their PyTorch versions."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # Triton exists for Linux only
    triton = tl = None

__all__ = ["cdiv", "interpreted", "jit", "launches", "on_device_of", "padded", "tl", "uses_triton"]


def jit(function: Callable[..., None]) -> Any:
    """Compile a kernel with Triton (interpreted under TRITON_INTERPRET=1)."""
    return function if triton is None else triton.jit(inspect.unwrap(function))  # as written: Triton reads its source


INTERPRET = False
"""Whether kernels run on the CPU, block by block in numpy (TRITON_INTERPRET=1 at import): for tests."""


def interpreted() -> bool:
    """Return whether kernels are interpreted; these must widen bfloat16, which interpreted products misread."""
    return INTERPRET


def uses_triton(*tensors: Tensor) -> bool:
    """Return whether a kernel can take these tensors: on CUDA (or interpreted), in a dtype that tensor cores multiply,
    where kernels can be launched at all.
    """
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    if triton is None or any(tensor.dtype not in kinds for tensor in tensors):
        return False
    return interpreted() or (all(tensor.is_cuda for tensor in tensors) and launches(tensors[0].device))


@jit
def _probe(out_ptr):  # type: ignore[no-untyped-def]
    """Write one number: the smallest kernel."""
    tl.store(out_ptr, 1.0)


COMPILED = triton is not None and isinstance(_probe, triton.JITFunction)
"""Whether kernels are compiled, not interpreted (TRITON_INTERPRET=1)."""


@functools.cache
def launches(device: torch.device) -> bool:
    """Return whether kernels can be launched on a GPU, by trying once; warn with the reason if not.

    Triton's first launch compiles a stub in C, which needs a compiler, Python's headers and a folder to keep it in.
    Interpreted kernels always can.
    """
    if not COMPILED:
        return True
    try:
        with torch.cuda.device(device):
            _probe[(1,)](torch.zeros(1, device=device))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # raised by compiler, loader, file system or driver
        reason = " ".join([f"{type(error).__name__}:", *str(error).split()])[:200]
        warnings.warn(
            f"Triton cannot launch kernels on {device} ({reason}): PyTorch's own operators take their place, more "
            "slowly. It needs a C compiler and Python's headers, as of the packages gcc and python3-dev",
            stacklevel=3,
        )
        return False
    return True


def on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Select a CUDA tensor's device in the context: Triton launches on torch's current one."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else nullcontext()


def padded(width: int) -> int:
    """Return the power of two, 16 or more, that holds so many dimensions."""
    return max(16, 1 << (width - 1).bit_length())


def cdiv(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)
