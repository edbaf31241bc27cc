"""Compiles what the package's launches compile, without a GPU: for `test_compilation.py`, in a process of its own.

Arguments: the compute capability (80), the dtype of queries, and shapes of attention as JSON. Prints JSON: of each
compiled kernel its shared memory and code in bytes, the arguments that were taken for constants because they are 1, and
those that Triton was told are divisible by 16.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from head_draws import bias_of, draw
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from mechvit.kernels import attention_pair, attention_statistics, cache_write, sparse_products

KERNELS = {
    "rows": attention_statistics._kernel,
    "pair": attention_pair._kernel,
    "write": cache_write._kernel,
    "times": sparse_products._times_kernel,
    "samples": sparse_products._samples_kernel,
}


class Driver:
    """A driver with the properties of a GPU that Triton reads before it launches."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(capability: int) -> None:
    """Have every launch end once its kernel is compiled."""
    driver.set_active(Driver(capability))
    triton.JITFunction.__getitem__ = lambda kernel, grid: lambda *a, **k: kernel.run(*a, grid=grid, warmup=True, **k)
    for module in (attention_pair, attention_statistics, cache_write, sparse_products):
        module.__dict__["uses_triton"] = lambda *tensors: True


def launch_attention(shape: list[int], dtype: torch.dtype) -> None:
    """Readings of attention, of queries and keys as models hold them; and of pointers that 16 does not divide."""
    q, k, v = draw(shape, dtype)
    bias = bias_of(shape, dtype, "cpu")
    attention_statistics.attention_statistics(q, k)
    attention_statistics.attention_statistics(q, k, v, bias=bias)
    attention_statistics.attention_statistics(q[..., 1:], k[..., 1:])
    attention_pair.attention_pair(q, k, q, k)
    attention_pair.attention_pair(q, k, q, k, bias=bias, other_bias=bias)


def launch_saes(width: int, dtype: torch.dtype) -> None:
    """Writes into a cache, and an SAE's sparse products."""
    resid, slots = torch.zeros(4, 197, width, dtype=dtype), torch.arange(4 * 196)
    for stored in (torch.bfloat16, torch.float32):
        buffer = torch.zeros(4 * 197, width, dtype=stored)
        cache_write.write_rows(buffer, resid, 0)
        cache_write.write_rows(buffer, resid.transpose(0, 1).contiguous().transpose(0, 1), 3, first=1, scale=0.5)
        cache_write.write_rows(buffer, resid, slots, first=1)
    offsets, row, column = torch.tensor([0, 2, 3]), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2])
    values, left, right = (torch.zeros(size, dtype=dtype) for size in ((3,), (2, width), (3, width)))
    sparse_products.sparse_times_dense(offsets, column, values, right)
    sparse_products.sampled_products(offsets, row, column, left, right)


def about(name: str, kernel: Any, compiled: Any) -> dict[str, Any]:
    """A description of the compiled kernel."""
    source = compiled.src
    declared = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    constants = {argument for argument, kind in source.signature.items() if kind == "constexpr"}
    return {
        "kernel": name,
        "shared": compiled.metadata.shared,
        "cubin": len(compiled.asm["cubin"]),
        "ones": sorted(constants - declared),
        "aligned": sorted(
            kernel.arg_names[i] for (i,), told in source.attrs.items() if ["tt.divisibility", 16] in told
        ),
    }


if __name__ == "__main__":
    compile_only(int(sys.argv[1]))
    of_queries = getattr(torch, sys.argv[2])
    for heads in json.loads(sys.argv[3]):
        launch_attention(heads, of_queries)
    for d_model in (768, 96, 50):
        launch_saes(d_model, of_queries)
    found = [about(name, k, compiled) for name, k in KERNELS.items() for compiled in k.device_caches[0][0].values()]
    print(json.dumps(found))
