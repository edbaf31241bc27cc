"""Products on kept entries, interpreted and by torch's CSR, against the dense matrix in float64."""

from __future__ import annotations

import pytest
import torch

from mechvit.kernels import jit
from mechvit.kernels import sparse_products as sparse

pytest.importorskip("triton")
DTYPES = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def draw(n_rows, n_columns, density, dtype, device, seed=0):
    """Some rows and columns are empty."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(n_rows, n_columns, generator=generator) < density
    mask[n_rows // 2] = False
    mask[:, n_columns // 3] = False
    rows, columns = mask.nonzero(as_tuple=True)
    values = torch.randn(len(rows), generator=generator).to(device, dtype)
    return sparse.offsets_of(rows, n_rows).to(device), rows.to(device), columns.to(device), values


def dense(n, width, dtype, device, seed=1):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 24, 96, 700])
def test_times_dense_matches_float64(dtype, width, device):
    offsets, _, columns, values = draw(13, 50, 0.1, dtype, device)
    right = dense(50, width, dtype, device)
    found = sparse.sparse_times_dense(offsets, columns, values, right)
    expected = sparse.reference(offsets, columns, values.double(), right.double())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=DTYPES[dtype], atol=DTYPES[dtype])
    assert (found[13 // 2] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 24, 96, 700])
def test_samples_match_float64(dtype, width, device):
    offsets, rows, columns, _ = draw(13, 50, 0.1, dtype, device)
    left, right = dense(13, width, dtype, device), dense(50, width, dtype, device, 2)
    found = sparse.sampled_products(offsets, rows, columns, left, right)
    expected = sparse.reference_samples(offsets, columns, left.double(), right.double())
    assert len(found) == len(columns) > 20
    tolerance = DTYPES[dtype] * max(1, width**0.5)
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_torchs_own_products_are_the_same(monkeypatch):
    monkeypatch.setattr(jit, "INTERPRET", False)
    offsets, rows, columns, values = draw(40, 300, 0.05, torch.float64, "cpu")
    left, right = (dense(n, 33, torch.float64, "cpu", n) for n in (40, 300))
    torch.testing.assert_close(
        sparse.sparse_times_dense(offsets, columns, values, right), sparse.reference(offsets, columns, values, right)
    )
    torch.testing.assert_close(
        sparse.sampled_products(offsets, rows, columns, left, right),
        sparse.reference_samples(offsets, columns, left, right),
    )


def test_nothing_kept_is_zero(device):
    offsets = torch.zeros(5, dtype=torch.long, device=device)
    none = torch.zeros(0, dtype=torch.long, device=device)
    right = dense(7, 16, torch.float32, device)
    assert (sparse.sparse_times_dense(offsets, none, torch.zeros(0, device=device), right) == 0).all()
    assert sparse.sampled_products(offsets, none, none, right[:4], right).shape == (0,)
