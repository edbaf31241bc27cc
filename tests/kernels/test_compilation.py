"""The kernels compile for NVIDIA's GPUs, also where there is none, and fit their shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
CODE = """
import json, sys, torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mechvit.kernels import attention_pair, attention_statistics, cache_write, sparse_products

FLOATS = "entropy maximum logsumexp cls cosine squared kl lse1 lse2".split()
INTEGERS = "offset column row slot".split()
name, dtype, architecture, width = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
head = torch.empty(1, 1, 1, width, dtype=torch.float32 if dtype == "fp32" else torch.bfloat16)
tile = attention_statistics.tile_of(head)
TILES = {"WIDEN": False, "ROWS": tile, "COLUMNS": tile, "WIDTH": width}
KERNELS = {
    "rows": (attention_statistics._kernel, TILES | {"HAS_BIAS": True, "HAS_V": True}),
    "pair": (attention_pair._kernel, TILES | {"HAS_BIAS1": True, "HAS_BIAS2": True}),
    "write": (cache_write._kernel, {"CONSECUTIVE": False, "SCALED": True, "WIDTH": 1024}),
    "write_consecutive": (cache_write._kernel, {"CONSECUTIVE": True, "SCALED": False, "WIDTH": 1024}),
    "times": (sparse_products._times_kernel, {"WIDTH": 512}),
    "samples": (sparse_products._samples_kernel, {"WIDTH": 512}),
}

def kind(name, constants, dtype):
    if name in constants:
        return "constexpr"
    if name.endswith("_ptr"):
        what = name.removesuffix("_ptr")
        return "*i64" if what in INTEGERS else "*fp32" if what in FLOATS else "*" + dtype
    return "fp32" if name == "scale" else "i32"

kernel, constants = KERNELS[name]
signature = {argument: kind(argument, constants, dtype) for argument in kernel.arg_names}
source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
print(json.dumps({"shared": compiled.metadata.shared, "cubin": len(compiled.asm["cubin"])}))
"""
ARCHITECTURES = [80, 90]


def compiled(name, dtype, architecture, cache, width=64):
    """Compile one kernel in a process of its own: its shared memory and the size of its code, in bytes."""
    settings = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", CODE, name, dtype, str(architecture), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["rows", "pair", "write", "write_consecutive", "times", "samples"])
def test_kernel_compiles(name, dtype, architecture, tmp_path):
    found = compiled(name, dtype, architecture, tmp_path)
    assert found["cubin"] > 1000
    assert found["shared"] <= 99 * 1024, "also on the smaller consumer GPUs"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("width", [128, 256])
@pytest.mark.parametrize("name", ["rows", "pair"])
def test_wide_heads_fit_the_shared_memory(name, width, dtype, architecture, tmp_path):
    found = compiled(name, dtype, architecture, tmp_path, width)
    assert found["shared"] <= 99 * 1024, "also on the smaller consumer GPUs"
