"""The kept entries and their products equal dense matrices; the gradients equal finite differences."""

from __future__ import annotations

import pytest
import torch

from mechvit.saes.training.sparse_codes import Codes, SparseEntries, encode_above, sparse_decode, sparse_encode


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def kept() -> SparseEntries:
    """Nine entries of a [5, 7] matrix; row 2 and columns 0 and 5 have none."""
    index = torch.tensor([1, 3, 6, 8, 11, 23, 24, 30, 34])
    return SparseEntries(index, normal(9), 5, 7)


def test_forms_of_kept_entries_match_dense(kept):
    dense = torch.zeros(5, 7, dtype=torch.float64)
    for place, value in zip(kept.index.tolist(), kept.values, strict=True):
        dense[place // 7, place % 7] = value
    assert (dense != 0).sum(1).tolist() == [3, 2, 0, 2, 2]
    assert torch.equal(kept.dense(kept.values), dense)
    assert torch.equal(kept.times(kept.values, torch.eye(dense.shape[1], dtype=dense.dtype)), dense)
    assert torch.equal(kept.transposed_times(kept.values, torch.eye(len(dense), dtype=dense.dtype)), dense.T)
    codes, own = Codes(kept, kept.values), dense.to_sparse()
    assert torch.equal(codes.to_dense(), dense)
    assert torch.equal(codes.values(), own.values())
    for dim in (0, 1, -1, -2):
        assert torch.equal(codes.bool().float().sum(dim), own.bool().float().sum(dim).to_dense())
        torch.testing.assert_close(codes.sum(dim), dense.sum(dim))


@pytest.mark.parametrize("n_rows", [1, 255, 256, 257, 600])
@pytest.mark.parametrize("floor", [0.0, 0.8, -0.5, "per latent"])
def test_encode_above_matches_dense(n_rows, floor):
    x, weight, bias = normal(n_rows, 6), normal(6, 20, seed=1), normal(20, seed=2)
    floor = normal(20, seed=3) if isinstance(floor, str) else floor
    dense = x @ weight + bias
    kept = encode_above(x, weight, bias, floor)
    assert torch.equal(kept.index, (dense > floor).flatten().nonzero().squeeze(1))
    torch.testing.assert_close(kept.dense(kept.values), torch.where(dense > floor, dense, 0), rtol=0, atol=1e-12)


def test_encode_above_gives_up_where_entries_are_dense():
    x, weight, bias = normal(300, 6), normal(6, 20, seed=1), torch.zeros(20, dtype=torch.float64)
    share = float((x[:256] @ weight > 0).double().mean())
    assert 0.3 < share < 0.7
    assert encode_above(x, weight, bias, max_density=share - 0.01) is None
    assert len(encode_above(x, weight, bias, max_density=share + 0.01).values) == int((x @ weight > 0).sum())


def test_encode_gradients_match_finite_differences(kept):
    x, W_enc, b_enc, b_dec = normal(5, 3), normal(3, 7, seed=1), normal(7, seed=2), normal(3, seed=3)

    def entries(W_enc, b_enc, b_dec):
        pre = ((x - b_dec) @ W_enc + b_enc).detach().flatten()[kept.index]
        return sparse_encode(x, W_enc, b_enc, b_dec, pre, kept)

    assert torch.autograd.gradcheck(entries, [w.requires_grad_() for w in (W_enc, b_enc, b_dec)])


def test_decode_and_its_gradients_match_dense_and_finite_differences(kept):
    values, W_dec, b_dec = kept.values.clone(), normal(7, 3, seed=1), normal(3, seed=2)
    torch.testing.assert_close(sparse_decode(values, W_dec, b_dec, kept), kept.dense(kept.values) @ W_dec + b_dec)
    assert torch.autograd.gradcheck(
        lambda v, W, b: sparse_decode(v, W, b, kept), [w.requires_grad_() for w in (values, W_dec, b_dec)]
    )


def test_no_kept_entries_decode_to_the_bias():
    none = SparseEntries(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64), 4, 7)
    W_dec, b_dec = normal(7, 3).requires_grad_(), normal(3, seed=1).requires_grad_()
    out = sparse_decode(none.values, W_dec, b_dec, none)
    assert torch.equal(out, b_dec.expand(4, 3))
    out.sum().backward()
    assert torch.equal(W_dec.grad, torch.zeros(7, 3, dtype=torch.float64))
    assert b_dec.grad.tolist() == [4, 4, 4]
