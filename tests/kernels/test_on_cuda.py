"""On a GPU: the attention of whole models against a CPU, many heads, and a device that is not the current one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from head_draws import SHAPES, bias_of, draw

from mechvit.analysis import attention_entropy, attention_shift
from mechvit.kernels import attention_pair as pair
from mechvit.kernels import attention_statistics as rows
from mechvit.kernels import cache_write, jit
from mechvit.kernels import sparse_products as sparse

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("images", [1, 3])
def test_entropy_of_a_model_matches_a_cpu(tiny_model, tiny_images, images):
    few = tiny_images.select(range(images))
    expected = attention_entropy(tiny_model, few, batch_size=2)
    found = attention_entropy(tiny_model.to("cuda"), few, batch_size=2)
    assert_tensors_close(found, expected)


def test_shift_of_a_model_matches_a_cpu(tiny_model, tiny_images):
    expected = attention_shift(tiny_model, tiny_images, "gaussian_blur_2", batch_size=5)
    found = attention_shift(tiny_model.to("cuda"), tiny_images, "gaussian_blur_2", batch_size=5)
    assert_tensors_close(found, expected)
    assert found.cosine.min() < 0.99


def assert_tensors_close(found, expected):
    tensors = [
        field.name for field in dataclasses.fields(found) if isinstance(getattr(found, field.name), torch.Tensor)
    ]
    assert len(tensors) >= 2
    for name in tensors:
        ours, theirs = getattr(found, name).cpu().double(), getattr(expected, name).double()
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=name)


def test_many_heads():
    q, k, _ = draw((70_000, 1, 3, 3, 16), device="cuda")
    assert_tensors_close(rows.attention_statistics(q, k), rows.reference(q, k))
    assert_tensors_close(pair.attention_pair(q, k, q + 1, k), pair.reference(q, k, q + 1, k))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_kernels_run_where_their_tensors_are():
    """Triton launches on torch's current device, which is the first one here."""
    here = "cuda:1"
    q, k, v = draw(SHAPES["odd"], device=here)
    bias = bias_of(SHAPES["odd"], torch.float32, here)
    assert_tensors_close(rows.attention_statistics(q, k, v, bias=bias), rows.reference(q, k, v, bias))
    assert_tensors_close(pair.attention_pair(q, k, q + 1, k), pair.reference(q, k, q + 1, k))
    buffer, resid = torch.zeros(6, 8, device=here), torch.randn(2, 3, 8, device=here)
    cache_write.write_rows(buffer, resid, 0)
    assert torch.equal(buffer, resid.flatten(0, 1))
    at, entries = torch.tensor([0, 1, 3], device=here), torch.tensor([0.5, 1.0, -2.0], device=here)
    row, column = torch.tensor([0, 1, 1], device=here), torch.tensor([2, 0, 4], device=here)
    right, left = torch.randn(5, 7, device=here), torch.randn(2, 7, device=here)
    torch.testing.assert_close(
        sparse.sparse_times_dense(at, column, entries, right), sparse.reference(at, column, entries, right)
    )
    torch.testing.assert_close(
        sparse.sampled_products(at, row, column, left, right), sparse.reference_samples(at, column, left, right)
    )
    assert torch.cuda.current_device() == 0
    with jit.on_device_of(q):
        assert torch.cuda.current_device() == 1
