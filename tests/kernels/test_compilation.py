"""The kernels compile for NVIDIA's GPUs, also where there is none, and fit their shared memory.

What is compiled is what a launch compiles: the package's own functions are called on tensors as models hold them, up to
the launch. Triton makes a kernel of its own of each pattern of arguments: one that is 1 (a stride) is a constant, and
of the others it is told which are divisible by 16.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
LAUNCHES = Path(__file__).with_name("compile_launches.py")
ARCHITECTURES = [80, 90]
VIT, SMALL, ONE_HEAD = (2, 12, 197, 197, 64), (2, 3, 37, 37, 24), (1, 1, 5, 1, 8)
NARROW = [VIT, SMALL, ONE_HEAD]
WIDE = [(1, 2, 70, 65, 128), (1, 2, 70, 65, 256), (1, 2, 70, 65, 144)]  # wider ones are left to PyTorch


def compiled(architecture, dtype, shapes, cache):
    """Compile what these shapes launch in a process of its own; of each kernel its size and what it was told."""
    settings = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, str(LAUNCHES), str(architecture), dtype, json.dumps(shapes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_launches_compile_fits_a_gpu(dtype, architecture, tmp_path):
    found = compiled(architecture, dtype, NARROW, tmp_path)
    counts = {name: [kernel["kernel"] for kernel in found].count(name) for name in ("rows", "pair", "write")}
    assert min(counts.values()) >= 6, counts
    assert {kernel["kernel"] for kernel in found} == {"rows", "pair", "write", "times", "samples"}
    for kernel in found:
        assert kernel["cubin"] > 1000
        assert kernel["shared"] <= 99 * 1024, "also on the smaller consumer GPUs"
    rows = [kernel for kernel in found if kernel["kernel"] == "rows"]
    assert all({"sqd", "skd", "svd"} <= set(kernel["ones"]) for kernel in rows), "the last stride is 1"
    assert any({"q_ptr", "k_ptr", "sqb", "sqn"} <= set(kernel["aligned"]) for kernel in rows)
    assert any("q_ptr" not in kernel["aligned"] for kernel in rows)
    assert any("heads" in kernel["ones"] for kernel in rows)
    written = [kernel for kernel in found if kernel["kernel"] == "write"]
    assert any("sb" in kernel["aligned"] for kernel in written)
    assert any("sb" not in kernel["aligned"] for kernel in written)


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_wide_heads_fit_the_shared_memory(dtype, architecture, tmp_path):
    found = compiled(architecture, dtype, WIDE, tmp_path)
    attention = [kernel for kernel in found if kernel["kernel"] in ("rows", "pair")]
    assert len(attention) >= 10
    assert max(kernel["shared"] for kernel in attention) <= 99 * 1024, "also on the smaller consumer GPUs"
