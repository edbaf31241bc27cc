"""Attention's kernels under masks, autocast, and inputs that do not fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from head_draws import SHAPES, bias_of, draw, exact

from mechvit.kernels import attention_pair as pair
from mechvit.kernels import attention_statistics as rows
from mechvit.kernels import jit

pytest.importorskip("triton")


def assert_close(found, expected, tolerance=5e-5):
    for field in dataclasses.fields(found):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if theirs is not None:
            torch.testing.assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance, msg=field.name)


@pytest.fixture
def masked(device):
    """A bias that masks whole tiles of keys, the first ones and the class token among them, and every other key."""
    shape = (2, 2, 37, 150, 24)
    bias = bias_of(shape, torch.float32, device)
    bias[..., :70] = float("-inf")
    bias[..., 1::2] = float("-inf")
    return shape, bias


def test_masked_keys_have_no_weight(masked, device):
    shape, bias = masked
    q, k, v = draw(shape, device=device)
    expected = exact(rows.reference, q, k, v, bias=bias)
    assert all(getattr(expected, field.name).isfinite().all() for field in dataclasses.fields(expected))
    assert (expected.cls_mass == 0).all()
    assert_close(rows.attention_statistics(q, k, v, bias=bias), expected)
    assert_close(rows.blocked(q, k, v, bias), expected)
    few = rows.reference(q[..., 70::2, :], k[..., 70::2, :], bias=bias[..., 70::2, 70::2])
    assert_close(rows.attention_statistics(q[..., 70::2, :], k, bias=bias[..., 70::2, :]), few)


@pytest.mark.long
def test_pairs_of_masked_keys(masked, device):
    shape, bias = masked
    (q, k, _), (other_q, other_k, _) = (draw(shape, device=device, seed=seed) for seed in (0, 1))
    given = q, k, other_q, other_k
    expected = exact(pair.reference, *given, bias=bias, other_bias=bias)
    assert all(getattr(expected, field.name).isfinite().all() for field in dataclasses.fields(expected))
    assert_close(pair.attention_pair(*given, bias=bias, other_bias=bias), expected)
    assert_close(pair.blocked(*given, bias, bias), expected)
    for first, second, infinite in ((bias, None, False), (None, bias, True)):
        expected = exact(pair.reference, *given, bias=first, other_bias=second)
        assert bool(expected.kl.isinf().all()) == infinite
        assert_close(pair.attention_pair(*given, bias=first, other_bias=second), expected)
        assert_close(pair.blocked(*given, first, second), expected)


def test_a_key_that_rounds_to_no_weight_may_be_masked_in_the_other(device):
    """Its weight is 0 in float32 without a mask, and its log ratio infinite: it adds nothing to KL."""
    (q, k, _), (other_q, other_k, _) = (draw((1, 1, 5, 20, 24), device=device, seed=seed) for seed in (0, 1))
    q[..., 0], k[..., 3, :], k[..., 3, 0] = 1000, 0, -1000
    mask = torch.zeros(1, 1, 5, 20, device=device)
    mask[..., 3] = float("-inf")
    for found in (pair.attention_pair, pair.blocked):
        kl = found(q, k, other_q, other_k, other_bias=mask).kl
        assert kl.isfinite().all()
        torch.testing.assert_close(kl, pair.reference(q, k, other_q, other_k, other_bias=mask).kl, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("keys", [197, rows.FUSED_KEYS])
def test_autocast_changes_nothing(keys, monkeypatch):
    monkeypatch.setattr(jit, "INTERPRET", False)
    (q, k, v), (other_q, other_k, _) = (draw((1, 2, 40, keys, 16), seed=seed) for seed in (0, 1))
    plain = rows.attention_statistics(q, k, v), pair.attention_pair(q, k, other_q, other_k), rows.row_entropy(q, k)
    with torch.autocast("cpu", torch.bfloat16):
        assert (q @ k.transpose(-1, -2)).dtype == torch.bfloat16
        cast = rows.attention_statistics(q, k, v), pair.attention_pair(q, k, other_q, other_k), rows.row_entropy(q, k)
    for ours, theirs in zip(cast[:2], plain[:2], strict=True):
        assert all(torch.equal(getattr(ours, f.name), getattr(theirs, f.name)) for f in dataclasses.fields(ours))
    assert torch.equal(cast[2], plain[2])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"k": (2, 2, 37, 25)}, "q and k must be"),
        ({"k": (2, 3, 37, 24)}, "q and k must be"),
        ({"bias": (1, 2, 37, 36)}, "bias must be"),
        ({"bias": (3, 2, 37, 37)}, "bias must be"),
        ({"v": (2, 2, 36, 24)}, "v must match"),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_named(change, reason):
    given = {"q": (2, 2, 37, 24), "k": (2, 2, 37, 24)} | change
    tensors = {name: torch.zeros(shape) for name, shape in given.items()}
    q, k, v = tensors.pop("q"), tensors.pop("k"), tensors.pop("v", None)
    with pytest.raises(ValueError, match=reason):
        rows.attention_statistics(q, k, v, **tensors)


def test_dtypes_and_devices_that_do_not_fit_are_named():
    q, k, v = draw(SHAPES["odd"])
    bias = bias_of(SHAPES["odd"], torch.float32, "meta")
    with pytest.raises(ValueError, match=r"v must match k, torch.float32 .* got torch.bfloat16"):
        rows.attention_statistics(q, k, v.bfloat16())
    with pytest.raises(ValueError, match="bias must be on the queries' device, cpu; got meta"):
        rows.attention_statistics(q, k, bias=bias)
    with pytest.raises(ValueError, match="on one device"):
        rows.attention_statistics(q, k.to("meta"))
    with pytest.raises(ValueError, match="shape, dtype and device"):
        pair.attention_pair(q, k, q.to("meta"), k.to("meta"))


def test_pairs_of_two_shapes_are_named():
    a, b = torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 6, 8)
    with pytest.raises(ValueError, match="the same shape, dtype"):
        pair.attention_pair(a, a, b, b)
