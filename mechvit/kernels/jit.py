"""Triton where it is installed. The kernels' files import without it, and then run their PyTorch versions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # it exists for Linux alone
    triton = tl = None

__all__ = ["cdiv", "interpreted", "jit", "on_device_of", "tl", "uses_triton"]


def jit(function: Callable[..., None]) -> Any:
    """Compile a kernel with Triton (or have it interpreted, under TRITON_INTERPRET=1)."""
    return function if triton is None else triton.jit(function)


INTERPRET = False
"""Run kernels on the CPU, block by block in numpy, once they were made under TRITON_INTERPRET=1: for tests."""


def interpreted() -> bool:
    """Whether kernels are interpreted; its products take bfloat16 for integers, so that kernels widen it first."""
    return INTERPRET


def uses_triton(*tensors: Tensor) -> bool:
    """Whether a kernel can take these tensors: on CUDA (or interpreted), in a dtype that its tensor cores multiply."""
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    here = all(tensor.is_cuda for tensor in tensors) or interpreted()
    return triton is not None and here and all(tensor.dtype in kinds for tensor in tensors)


def on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Launch kernels on a CUDA tensor's device while it lasts: Triton takes torch's current one."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else nullcontext()


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)
