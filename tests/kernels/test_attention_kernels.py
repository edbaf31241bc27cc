"""The kernels of attention rows, the interpreted and the blocked, against their definitions in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from head_draws import SHAPES, bias_of, draw, exact
from torch.nn import functional as F

from mechvit.kernels import attention_pair as pair
from mechvit.kernels import attention_statistics as rows
from mechvit.kernels import blocks, jit

pytest.importorskip("triton")
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float64: 1e-12}
half = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)


def assert_close(found, expected, tolerance):
    for field in dataclasses.fields(found):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if theirs is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance, msg=field.name)


@half
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rows_match_the_definition_in_float64(shape, dtype, device):
    q, k, v = draw(shape, dtype, device)
    assert not q.is_contiguous() or shape[1] == 1 or shape[2] == 1
    found = rows.attention_statistics(q, k, v)
    expected = exact(rows.reference, q, k, v)
    assert found.entropy.dtype == torch.float32
    assert found.output.dtype == dtype
    statistics = dataclasses.replace(found, output=None), dataclasses.replace(expected, output=None)
    assert_close(*statistics, 2e-5 if dtype == torch.float32 else 1e-4)  # half inputs, but sums and scores in float32
    own = (found.output.double() - expected.output).abs().max()
    eager = F.scaled_dot_product_attention(q, k, v).double()
    assert own <= 2 * (eager - expected.output).abs().max() + TOLERANCE[dtype] / 4


@half
def test_rows_with_a_bias_of_any_shape(dtype, device):
    shape = SHAPES["odd"]
    q, k, v = draw(shape, dtype, device)
    for batch, heads in ((1, 2), (2, 1), (1, 1), (2, 2)):
        bias = bias_of(shape, dtype, device, batch, heads)
        found = rows.attention_statistics(q, k, v, bias=bias, scale=0.3)
        wide = [x.double() for x in (q, k, v, bias)]
        expected = rows.reference(*wide, scale=0.3)
        assert_close(found, expected, TOLERANCE[dtype])
        assert_close(rows.blocked(q, k, v, bias, 0.3), expected, TOLERANCE[dtype])


@pytest.mark.long
@half
@pytest.mark.parametrize("shape", [SHAPES["odd"], SHAPES["vit"], SHAPES["pooling"]], ids=["odd", "vit", "pooling"])
def test_pairs_match_the_definition_in_float64(shape, dtype, device):
    (q, k, _), (other_q, other_k, _) = (draw(shape, dtype, device, seed) for seed in (0, 1))
    bias = bias_of(shape, dtype, device)
    found = pair.attention_pair(q, k, other_q, other_k, bias=bias)
    expected = exact(pair.reference, q, k, other_q, other_k, bias=bias)
    assert expected.kl.max() > 0.1
    assert expected.cosine.min() < 0.9
    assert_close(found, expected, 5e-5 if dtype == torch.float32 else 2e-4)
    assert_close(pair.blocked(q, k, other_q, other_k, bias), expected, 5e-5 if dtype == torch.float32 else 2e-4)


def test_nearly_equal_pairs_keep_their_digits(device):
    q, k, _ = draw(SHAPES["odd"], device=device)
    other = q + 1e-3 * draw(SHAPES["odd"], device=device, seed=3)[0]
    expected = exact(pair.reference, q, k, other, k)
    far = (1 - expected.cosine).max()
    assert 1e-9 < far < 1e-4
    for found in (pair.attention_pair(q, k, other, k), pair.blocked(q, k, other, k)):
        assert ((1 - found.cosine.double()) - (1 - expected.cosine)).abs().max() < 2e-7
        torch.testing.assert_close(found.squared_difference.double(), expected.squared_difference, rtol=2e-2, atol=1e-9)


def test_sharp_rows_are_finite_and_right(device):
    """Scores in the hundreds: entropies near 0, weights that underflow, and a maximum that comes last."""
    q, k, v = draw(SHAPES["odd"], device=device, sharp=400.0)
    found = rows.attention_statistics(q, k, v)
    expected = exact(rows.reference, q, k, v)
    assert expected.entropy.min() < 1e-12
    for each in (found, rows.blocked(q, k, v)):
        assert all(getattr(each, name).isfinite().all() for name in ("entropy", "maximum", "logsumexp", "cls_mass"))
        torch.testing.assert_close(each.entropy.double(), expected.entropy, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(each.logsumexp.double(), expected.logsumexp, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("limit", [1, 40, 5000, 2**19])
def test_blocks_of_any_size_give_the_same(limit, dtype, monkeypatch):
    shape = SHAPES["odd"]
    q, k, v = draw(shape, dtype)
    bias = bias_of(shape, dtype, "cpu")
    monkeypatch.setattr(blocks, "BLOCK", limit)
    expected = exact(rows.reference, q, k, v, bias)
    assert_close(rows.blocked(q, k, v, bias), expected, TOLERANCE[dtype])
    other = draw(shape, dtype, seed=1)
    expected = exact(pair.reference, q, k, *other[:2], bias=bias)
    assert_close(pair.blocked(q, k, *other[:2], bias), expected, max(1e-10, TOLERANCE[dtype]))


@pytest.mark.parametrize("sizes", [(5, 3, 7, 11), (1, 1, 1, 1), (2, 4, 100, 9), (64, 12, 37, 37)], ids=str)
def test_blocks_cover_everything_once(sizes, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 200)
    batch, heads, queries, keys = sizes
    seen = torch.zeros(sizes[:3], dtype=torch.int)
    for block in blocks.blocks(torch.zeros(batch, heads, queries, 2), torch.zeros(batch, heads, keys, 2)):
        seen[block] += 1
        assert seen[block].numel() * keys <= max(200, keys)
    assert (seen == 1).all()


@pytest.mark.parametrize("keys", [rows.FUSED_KEYS - 1, rows.FUSED_KEYS, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_the_entropy_alone_is_right(keys, dtype, offset, monkeypatch):
    """Past the number of keys from which it is fused, and where all keys share a large part, as trained ones do."""
    shape = (3, 2, 40, keys, 16)
    q, k, _ = draw(shape, dtype)
    k = k + offset
    genuine, fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, []
    monkeypatch.setattr(jit, "INTERPRET", False)
    monkeypatch.setattr(rows, "BLOCK", 2 * q[0].numel())  # two images at a time, then one
    monkeypatch.setattr(
        torch.ops.aten,
        "_scaled_dot_product_flash_attention_for_cpu",
        lambda *args, **options: fused.append(len(args[0])) or genuine(*args, **options),
    )
    found = rows.row_entropy(q, k)
    wide, narrow = exact(rows.reference, q, k).entropy, rows.reference(q, k).entropy
    assert fused == ([2, 1] if keys >= rows.FUSED_KEYS and dtype != torch.bfloat16 else [])
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    assert (found - wide).abs().max() <= max(4 * (narrow - wide).abs().max(), 1e-13)
    scaled = rows.reference(q.double(), k.double(), scale=0.01).entropy
    torch.testing.assert_close(rows.row_entropy(q, k, scale=0.01).double(), scaled, rtol=1e-5, atol=1e-5)


def test_the_entropy_alone_with_sharp_rows_or_a_bias(monkeypatch):
    monkeypatch.setattr(jit, "INTERPRET", False)
    shape = (1, 2, 30, 800, 16)
    q, k, _ = draw(shape, sharp=300.0)
    found, expected = rows.row_entropy(q, k), exact(rows.reference, q, k).entropy
    largest = (q.double() @ k.double().transpose(-1, -2)).abs().max() / 4
    assert largest > 1000
    assert found.min() >= 0
    assert (found - expected).abs().max() < 4 * largest * torch.finfo(torch.float32).eps
    bias = bias_of(shape, torch.float32, "cpu")
    q, k, _ = draw(shape)
    torch.testing.assert_close(
        rows.row_entropy(q, k, bias=bias).double(), exact(rows.reference, q, k, bias=bias).entropy, rtol=1e-5, atol=1e-5
    )


def test_float64_is_exact(device):
    q, k, v = (x.double() for x in draw(SHAPES["vit"], device=device))
    assert_close(rows.attention_statistics(q, k, v), rows.reference(q, k, v), 1e-12)
