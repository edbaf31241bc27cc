"""PyTorch's own operators take the place of kernels that Triton cannot launch, after one warning."""

from __future__ import annotations

import importlib
import re
import subprocess
import sysconfig
import warnings
from contextlib import nullcontext

import pytest
import torch
from head_draws import SHAPES, bias_of, draw

from mechvit.kernels import attention_pair as pair
from mechvit.kernels import attention_statistics as rows
from mechvit.kernels import cache_write, jit
from mechvit.kernels import sparse_products as sparse

triton = pytest.importorskip("triton")
STUB = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "stub", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_stub(void) { return PyModule_Create(&module); }
"""


class Claimed(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    is_cuda = True
    __torch_function__ = torch._C._disabled_torch_function_impl  # what is computed from it is an ordinary tensor


class Kernel:
    """A kernel whose launch compiles a stub with Triton's own code, as the first launch in a process does."""

    def __init__(self) -> None:
        self.launched = 0

    def __getitem__(self, grid):
        from triton.runtime.build import compile_module_from_src

        def launch(*args, **options):
            self.launched += 1
            compile_module_from_src(STUB, "stub")

        return launch


@pytest.fixture
def probe(monkeypatch, tmp_path):
    """The probe that compiles for real, into an empty cache; and no kernel that could be launched."""
    kernel = Kernel()
    monkeypatch.setattr(jit, "INTERPRET", False)
    monkeypatch.setattr(jit, "COMPILED", True)
    monkeypatch.setattr(jit, "_probe", kernel)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    forget_compiler()
    jit.launches.cache_clear()
    yield kernel
    forget_compiler()
    jit.launches.cache_clear()


def forget_compiler():
    """Make Triton look for a compiler again; since 3.8 it remembers the one it found."""
    build = importlib.import_module("triton.runtime.build")
    if hasattr(build, "_find_compiler"):
        build._find_compiler.cache_clear()


def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def no_headers(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_paths", lambda **options: {"include": str(tmp_path)})


def broken_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))


def no_cache(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the cache should be")


BROKEN = {
    no_compiler: "Failed to find C compiler",
    no_headers: "CalledProcessError",
    broken_compiler: "FileNotFoundError",
    no_cache: "FileExistsError|NotADirectoryError",
}


def compiles() -> bool:
    """Whether this machine has a compiler and Python's headers."""
    header = f"{sysconfig.get_paths()['include']}/Python.h"
    command = ["gcc", "-fsyntax-only", "-x", "c", "-include", header, "/dev/null"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.processes
@pytest.mark.parametrize("how", BROKEN, ids=lambda how: how.__name__)
def test_one_warning_says_why(probe, monkeypatch, tmp_path, how):
    how(monkeypatch, tmp_path)
    claimed = torch.zeros(2).as_subclass(Claimed)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert not jit.uses_triton(claimed)
        assert not jit.uses_triton(claimed)
    (message,) = [str(warning.message) for warning in said]
    assert re.match(rf"Triton cannot launch kernels on cpu \((.*: )?({BROKEN[how]})", message), message
    assert message.endswith("the packages gcc and python3-dev")
    assert probe.launched == 1


@pytest.mark.processes
@pytest.mark.skipif(not compiles(), reason="needs gcc and Python.h")
def test_where_the_stub_compiles_kernels_are_launched(probe):
    claimed = torch.zeros(2).as_subclass(Claimed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jit.uses_triton(claimed)
    assert not jit.uses_triton(claimed.double())
    assert not jit.uses_triton(claimed, torch.zeros(2))


def test_want_of_memory_is_no_reason_to_fall_back(probe, monkeypatch):
    def full(*args, **options):
        raise torch.OutOfMemoryError("planted")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(torch.OutOfMemoryError, match="planted"):
        jit.launches(torch.device("cpu"))


class Forbidden:
    def __getitem__(self, grid):
        raise AssertionError("launched")


@pytest.fixture
def without_launches(probe, monkeypatch, tmp_path):
    """No compiler, and kernels that must not be reached."""
    no_compiler(monkeypatch, tmp_path)
    for module in (rows, pair, cache_write):
        monkeypatch.setattr(module, "_kernel", Forbidden())
    monkeypatch.setattr(sparse, "_times_kernel", Forbidden())
    monkeypatch.setattr(sparse, "_samples_kernel", Forbidden())


@pytest.mark.filterwarnings("ignore:Triton cannot launch")
def test_every_kernel_falls_back(without_launches):
    """Readings of attention, writing a cache and an SAE's products, each against its reference."""

    def claim(tensor):
        return tensor.as_subclass(Claimed)

    q, k, v = draw(SHAPES["odd"])
    bias = bias_of(SHAPES["odd"], torch.float32, "cpu")
    found = rows.attention_statistics(claim(q), claim(k), claim(v), bias=bias)
    expected = rows.reference(q, k, v, bias)
    for name in ("entropy", "maximum", "logsumexp", "cls_mass", "output"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    both = pair.attention_pair(claim(q), claim(k), claim(q + 1), claim(k))
    wanted = pair.reference(q, k, q + 1, k)
    torch.testing.assert_close(both.kl, wanted.kl, rtol=1e-4, atol=1e-6)
    buffer, resid = torch.zeros(6, 8), torch.randn(2, 3, 8)
    cache_write.write_rows(claim(buffer), claim(resid), 0)
    assert torch.equal(buffer, resid.flatten(0, 1))
    at, entries = torch.tensor([0, 1, 3]), torch.tensor([0.5, 1.0, -2.0])
    row, column = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 4])
    right, left = torch.randn(5, 7), torch.randn(2, 7)
    torch.testing.assert_close(
        sparse.sparse_times_dense(at, column, entries, claim(right)),
        sparse.reference(at, column, entries, right),
    )
    torch.testing.assert_close(
        sparse.sampled_products(at, row, column, claim(left), claim(right)),
        sparse.reference_samples(at, column, left, right),
    )
