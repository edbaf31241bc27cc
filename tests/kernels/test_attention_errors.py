"""The kernels' errors against float64 stay within those of plain PyTorch in the inputs' own dtype."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from head_draws import SHAPES, bias_of, draw, exact

from mechvit.kernels import attention_pair as pair
from mechvit.kernels import attention_statistics as rows

pytest.importorskip("triton")
half = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
shapes = pytest.mark.parametrize(
    "shape", [SHAPES["odd"], SHAPES["vit"], SHAPES["wide head"]], ids=["odd", "vit", "wide"]
)


def eager_rows(q, k, bias):
    """The definition in the inputs' dtype all along."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
    pattern, log = scores.softmax(-1), scores.log_softmax(-1)
    return rows.RowStatistics(-(pattern * log).sum(-1), pattern.amax(-1), scores.logsumexp(-1), pattern[..., 0], None)


def eager_pair(q, k, other_q, other_k, bias):
    logs = [
        (query @ key.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).log_softmax(-1)
        for query, key in ((q, k), (other_q, other_k))
    ]
    p, c = (log.exp() for log in logs)
    return pair.PairStatistics(
        -(p * logs[0]).sum(-1),
        -(c * logs[1]).sum(-1),
        torch.cosine_similarity(p, c, dim=-1),
        (p - c).square().sum(-1),
        (p * (logs[0] - logs[1])).sum(-1),
    )


def assert_no_worse(found, eager, expected):
    """The largest error is at most twice eager's; four float32 roundings of the largest value lie below any sum."""
    for field in dataclasses.fields(expected):
        wide = getattr(expected, field.name)
        if wide is None:
            continue
        ours, theirs = ((getattr(each, field.name).double() - wide).abs().max().item() for each in (found, eager))
        rounding = 4 * torch.finfo(torch.float32).eps * max(1.0, wide.abs().max().item())
        assert ours <= 2 * theirs + rounding, f"{field.name}: {ours:.2g} against {theirs:.2g}"


@half
@shapes
def test_rows_are_as_exact_as_eager(shape, dtype, device):
    q, k, _ = draw(shape, dtype, device)
    bias = bias_of(shape, dtype, device)
    expected = exact(rows.reference, q, k, bias=bias)
    eager = eager_rows(q, k, bias)
    assert_no_worse(rows.attention_statistics(q, k, bias=bias), eager, expected)
    assert_no_worse(rows.blocked(q, k, bias=bias), eager, expected)


@pytest.mark.long
@half
@shapes
def test_pairs_are_as_exact_as_eager(shape, dtype, device):
    (q, k, _), (other_q, other_k, _) = (draw(shape, dtype, device, seed) for seed in (0, 1))
    bias = bias_of(shape, dtype, device)
    expected = exact(pair.reference, q, k, other_q, other_k, bias=bias, other_bias=bias)
    eager = eager_pair(q, k, other_q, other_k, bias)
    assert_no_worse(pair.attention_pair(q, k, other_q, other_k, bias=bias, other_bias=bias), eager, expected)
    assert_no_worse(pair.blocked(q, k, other_q, other_k, bias, bias), eager, expected)
