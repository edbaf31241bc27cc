"""Launches of kernels: on the device of their tensors, in grids that a GPU takes."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from mechvit.kernels import attention_pair as pair
from mechvit.kernels import attention_statistics as rows
from mechvit.kernels import cache_write, jit
from mechvit.kernels import sparse_products as sparse

pytest.importorskip("triton")


@pytest.fixture
def launches(monkeypatch):
    """The grid of each launch and the device entered for it; nothing is computed."""
    seen: list[tuple[tuple[int, ...], torch.device | None]] = []
    entered: list[torch.device] = []

    class Kernel:
        def __getitem__(self, grid):
            seen.append((grid, entered[-1] if entered else None))
            return lambda *args, **options: None

    @contextmanager
    def on_device_of(tensor):
        entered.append(tensor.device)
        yield
        entered.pop()

    monkeypatch.setattr(jit, "INTERPRET", True)
    kernels = {rows: ["_kernel"], pair: ["_kernel"], cache_write: ["_kernel"]}
    for module, names in (kernels | {sparse: ["_times_kernel", "_samples_kernel"]}).items():
        monkeypatch.setattr(module, "on_device_of", on_device_of, raising=False)  # where it launches kernels
        for name in names:
            monkeypatch.setattr(module, name, Kernel())
    return seen


def test_every_launch_is_on_the_device_of_its_tensors(launches):
    q, place = torch.zeros(1, 2, 5, 16, device="meta"), torch.tensor([0, 1], device="meta")
    rows.attention_statistics(q, q, q)
    pair.attention_pair(q, q, q, q)
    cache_write.write_rows(torch.zeros(4, 8, device="meta"), torch.zeros(2, 2, 8, device="meta"), 0)
    dense = torch.zeros(2, 8, device="meta")
    sparse.sparse_times_dense(place, place[:1], torch.zeros(1, device="meta"), dense)
    sparse.sampled_products(place, place[:1], place[:1], dense, dense)
    assert [device for _, device in launches] == [torch.device("meta")] * 7


def test_many_heads_stay_within_a_gpus_grid(launches):
    """CUDA takes 2³¹ - 1 programs along x, and 65,535 along y and z."""
    q = torch.zeros(70_000, 1, 3, 16)
    rows.attention_statistics(q, q)
    pair.attention_pair(q, q, q, q)
    assert len(launches) == 4
    assert all(grid[0] >= 70_000 and max(grid[1:], default=1) <= 65_535 for grid, _ in launches)


def test_heads_too_wide_for_shared_memory_are_left_to_pytorch(launches):
    q = torch.randn(1, 2, 5, 257, generator=torch.Generator().manual_seed(0))
    found, expected = rows.attention_statistics(q, q), rows.reference(q, q)
    torch.testing.assert_close(found.entropy, expected.entropy)
    torch.testing.assert_close(pair.attention_pair(q, q, 2 * q, q).kl, pair.reference(q, q, 2 * q, q).kl)
    assert launches == []
    rows.attention_statistics(q[..., :256], q[..., :256])
    assert len(launches) == 1
