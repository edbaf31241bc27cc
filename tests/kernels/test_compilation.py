"""The kernels compile for NVIDIA's GPUs, also where there is none, and fit their shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
CODE = """
import json, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mechvit.kernels import attention_pair, attention_statistics

FLOATS = "entropy maximum logsumexp cls cosine squared kl lse1 lse2".split()
SIZES = {"WIDEN": False, "ROWS": 64, "COLUMNS": 64, "WIDTH": 64}
KERNELS = {
    "rows": (attention_statistics._kernel, {"HAS_BIAS": True, "HAS_V": True}),
    "pair": (attention_pair._kernel, {"HAS_BIAS1": True, "HAS_BIAS2": True}),
}

def kind(name, constants, dtype):
    if name in constants:
        return "constexpr"
    if name.endswith("_ptr"):
        return "*fp32" if name.removesuffix("_ptr") in FLOATS else "*" + dtype
    return "fp32" if name == "scale" else "i32"

name, dtype, architecture = sys.argv[1], sys.argv[2], int(sys.argv[3])
kernel, flags = KERNELS[name]
tile = 32 if dtype == "fp32" else 64
constants = SIZES | flags | {"ROWS": tile, "COLUMNS": tile}
signature = {argument: kind(argument, constants, dtype) for argument in kernel.arg_names}
source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
print(json.dumps({"shared": compiled.metadata.shared, "cubin": len(compiled.asm["cubin"])}))
"""
KIB = {80: 163, 90: 227}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", KIB)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["rows", "pair"])
def test_kernel_compiles(name, dtype, architecture, tmp_path):
    settings = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", CODE, name, dtype, str(architecture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cubin"] > 1000
    assert found["shared"] <= 99 * 1024, "also on the smaller consumer GPUs"
    assert found["shared"] <= KIB[architecture] * 1024
