"""Kernels run on the CPU through Triton's interpreter where there is no GPU."""

from __future__ import annotations

import pytest
import torch

from mechvit.kernels import jit

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """Have the kernels run, and not the PyTorch versions."""
    monkeypatch.setattr(jit, "INTERPRET", DEVICE == "cpu")


@pytest.fixture
def device() -> str:
    """Device of the kernels."""
    return DEVICE
