"""Row-by-row differences of two attention patterns of one shape, computed without storing either: cosine, squared
difference, KL divergence.

The patterns are softmaxes of two sets of scores; with the log-sum-exp of each row, a weight is exp(score - logsumexp),
so that a second pass over the keys adds up what each row needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .attention_statistics import WIDEST_HEAD, attention_statistics, broadcast_strides, check_shapes, launch
from .blocks import Bias, Keys, Queries, blocks, default_scale, scores_of
from .jit import jit, tl, uses_triton


@dataclass(frozen=True)
class PairStatistics:
    """Statistics of each pair of rows p (first pattern) and c (second), in float32, or float64 for float64 inputs."""

    entropy: Float[Tensor, "batch head query"]
    """H(p), nats."""
    other_entropy: Float[Tensor, "batch head query"]
    """H(c), nats."""
    cosine: Float[Tensor, "batch head query"]
    """Σ p c / (|p| |c|), 0 to 1."""
    squared_difference: Float[Tensor, "batch head query"]
    """Σ (p - c)², 0 to 2."""
    kl: Float[Tensor, "batch head query"]
    """KL(p ‖ c) = Σ p log(p / c), nats."""


def reference(
    q: Queries,
    k: Keys,
    other_q: Queries,
    other_k: Keys,
    bias: Bias = None,
    other_bias: Bias = None,
    scale: float | None = None,
) -> PairStatistics:
    """Compute the statistics from the whole patterns, as defined."""
    wide, logs = torch.promote_types(q.dtype, torch.float32), []
    for query, key, added in ((q, k, bias), (other_q, other_k, other_bias)):
        scores = query.to(wide) @ key.to(wide).transpose(-1, -2) * default_scale(q, scale)
        logs.append((scores if added is None else scores + added).log_softmax(-1))
    p, c = (log.exp() for log in logs)
    return PairStatistics(
        torch.special.entr(p).sum(-1),
        torch.special.entr(c).sum(-1),
        torch.cosine_similarity(p, c, dim=-1),
        (p - c).square().sum(-1),
        torch.where(p == 0, 0, p * (logs[0] - logs[1])).sum(-1),
    )


def cosine_of_norms(squared: Tensor, norm: Tensor, other_norm: Tensor) -> Tensor:
    """Compute cos = 1 - (|p - c|² - (|p| - |c|)²) / (2 |p| |c|), accurate where p and c are nearly equal."""
    return 1 - (squared - (norm - other_norm).square()) / (2 * norm * other_norm)


def blocked(
    q: Queries,
    k: Keys,
    other_q: Queries,
    other_k: Keys,
    bias: Bias = None,
    other_bias: Bias = None,
    scale: float | None = None,
) -> PairStatistics:
    """Compute the same with a few MiB of scores at a time, on any device and in any float dtype."""
    wide, scale = torch.promote_types(q.dtype, torch.float32), default_scale(q, scale)
    found = [torch.empty(q.shape[:-1], dtype=wide, device=q.device) for _ in range(5)]
    lowest, masked = torch.finfo(wide).min, bias is not None or other_bias is not None
    with torch.autocast(q.device.type, enabled=False):  # sums need float32
        for block in blocks(q, k):
            logs, patterns, entropies = [], [], []
            for query, key, added in ((q, k, bias), (other_q, other_k, other_bias)):
                log = scores_of(block, query, key, added, scale).log_softmax(-1)
                pattern = log.exp()
                # 0 log 0 is 0, where a bias masks a key out.
                entropies.append(-torch.linalg.vecdot(pattern, log if added is None else log.clamp_min(lowest)))
                logs.append(log)
                patterns.append(pattern)
            (p, c), (first, second) = patterns, logs
            ratio = first.sub_(second)
            kl = torch.linalg.vecdot(p, ratio.masked_fill_(p == 0, 0) if masked else ratio)
            norms = [torch.linalg.vector_norm(x, dim=-1) for x in patterns]
            squared = torch.linalg.vector_norm(p.sub_(c), dim=-1).square_()
            for whole, part in zip(found, (*entropies, cosine_of_norms(squared, *norms), squared, kl), strict=True):
                whole[block] = part
    return PairStatistics(*found)


@jit
def _kernel(  # type: ignore[no-untyped-def]
    q1_ptr,
    k1_ptr,
    lse1_ptr,
    bias1_ptr,
    q2_ptr,
    k2_ptr,
    lse2_ptr,
    bias2_ptr,
    cosine_ptr,
    squared_ptr,
    kl_ptr,
    sq1b,
    sq1h,
    sq1n,
    sq1d,
    sk1b,
    sk1h,
    sk1n,
    sk1d,
    sb1b,
    sb1h,
    sb1q,
    sb1k,
    sq2b,
    sq2h,
    sq2n,
    sq2d,
    sk2b,
    sk2h,
    sk2n,
    sk2d,
    sb2b,
    sb2h,
    sb2q,
    sb2k,
    heads,
    queries,
    keys,
    d_head,
    scale,
    HAS_BIAS1: tl.constexpr,
    HAS_BIAS2: tl.constexpr,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Run one program: ROWS queries of one head of one image, over all keys of both patterns in steps of COLUMNS."""
    tiles = tl.cdiv(queries, ROWS)
    rows = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(0) // tiles
    b, h = (head // heads).to(tl.int64), (head % heads).to(tl.int64)
    width = tl.arange(0, WIDTH)
    here, wide = rows < queries, width < d_head
    inside = here[:, None] & wide[None, :]
    at = (b * heads + h) * queries + rows
    q1 = tl.load(q1_ptr + b * sq1b + h * sq1h + rows[:, None] * sq1n + width[None, :] * sq1d, mask=inside, other=0.0)
    q2 = tl.load(q2_ptr + b * sq2b + h * sq2h + rows[:, None] * sq2n + width[None, :] * sq2d, mask=inside, other=0.0)
    if WIDEN:
        q1, q2 = q1.to(tl.float32), q2.to(tl.float32)
    lse1, lse2 = tl.load(lse1_ptr + at, mask=here, other=0.0), tl.load(lse2_ptr + at, mask=here, other=0.0)
    squared, kl = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    norm1, norm2 = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    for start in range(0, keys, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        there = columns < keys
        key_inside = there[None, :] & wide[:, None]
        both = here[:, None] & there[None, :]
        k1 = tl.load(
            k1_ptr + b * sk1b + h * sk1h + columns[None, :] * sk1n + width[:, None] * sk1d, mask=key_inside, other=0.0
        )
        k2 = tl.load(
            k2_ptr + b * sk2b + h * sk2h + columns[None, :] * sk2n + width[:, None] * sk2d, mask=key_inside, other=0.0
        )
        if WIDEN:
            k1, k2 = k1.to(tl.float32), k2.to(tl.float32)
        s1 = tl.dot(q1, k1, input_precision="ieee") * scale
        s2 = tl.dot(q2, k2, input_precision="ieee") * scale
        if HAS_BIAS1:
            s1 += tl.load(
                bias1_ptr + b * sb1b + h * sb1h + rows[:, None] * sb1q + columns[None, :] * sb1k, mask=both, other=0.0
            ).to(tl.float32)
        if HAS_BIAS2:
            s2 += tl.load(
                bias2_ptr + b * sb2b + h * sb2h + rows[:, None] * sb2q + columns[None, :] * sb2k, mask=both, other=0.0
            ).to(tl.float32)
        log1, log2 = s1 - lse1[:, None], s2 - lse2[:, None]
        p1 = tl.where(both, tl.exp(log1), 0.0)
        p2 = tl.where(both, tl.exp(log2), 0.0)
        kl += tl.sum(tl.where(p1 == 0.0, 0.0, p1 * (log1 - log2)), 1)
        squared += tl.sum((p1 - p2) * (p1 - p2), 1)
        norm1 += tl.sum(p1 * p1, 1)
        norm2 += tl.sum(p2 * p2, 1)
    length1, length2 = tl.sqrt(tl.where(here, norm1, 1.0)), tl.sqrt(tl.where(here, norm2, 1.0))
    apart = length1 - length2
    tl.store(cosine_ptr + at, 1.0 - (squared - apart * apart) / (2.0 * length1 * length2), mask=here)
    tl.store(squared_ptr + at, squared, mask=here)
    tl.store(kl_ptr + at, kl, mask=here)


def attention_pair(
    q: Queries,
    k: Keys,
    other_q: Queries,
    other_k: Keys,
    *,
    bias: Bias = None,
    other_bias: Bias = None,
    scale: float | None = None,
) -> PairStatistics:
    """Compare softmax(scale q kᵀ + bias) of two sets of queries and keys row by row, without storing either pattern.

    Triton on CUDA in float32, float16 and bfloat16; PyTorch by blocks elsewhere. Not differentiable.

    Args:
        q, k: queries and keys of the first pattern (clean), [batch, head, token, d_head], of any strides.
        other_q, other_k: those of the second (corrupted), with the same shapes.
        bias, other_bias: added to the scores, one for all images or heads where that dimension is 1; -inf masks a key
            out, and every row must keep one. KL is infinite where only the second masks a key.
        scale: 1 / √d_head when None.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    check_shapes(q, k, bias)
    check_shapes(other_q, other_k, other_bias)
    same = (q.shape, q.dtype, q.device) == (other_q.shape, other_q.dtype, other_q.device)
    if not same or k.shape != other_k.shape:
        raise ValueError(
            f"the two patterns must have the same shape, dtype and device; got queries {tuple(q.shape)} {q.dtype} on "
            f"{q.device} and {tuple(other_q.shape)} {other_q.dtype} on {other_q.device}, keys {tuple(k.shape)} and "
            f"{tuple(other_k.shape)}"
        )
    if not uses_triton(q, k, other_q, other_k) or q.shape[-1] > WIDEST_HEAD:
        return blocked(q, k, other_q, other_k, bias, other_bias, scale)
    first = attention_statistics(q, k, bias=bias, scale=scale)
    second = attention_statistics(other_q, other_k, bias=other_bias, scale=scale)
    found = [torch.empty_like(first.entropy) for _ in range(3)]
    biases = [q if added is None else added for added in (bias, other_bias)]
    own, others = (q, k, first.logsumexp, biases[0]), (other_q, other_k, second.logsumexp, biases[1])
    strides = [(*q.stride(), *k.stride(), *broadcast_strides(added)) for q, k, _, added in (own, others)]
    given = *own, *others, *found, *strides[0], *strides[1]
    launch(_kernel, given, q, k, scale, HAS_BIAS1=bias is not None, HAS_BIAS2=other_bias is not None)
    return PairStatistics(first.entropy, second.entropy, *found)
