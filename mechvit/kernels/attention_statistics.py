"""Statistics of attention rows without the pattern: entropy, largest weight, log-sum-exp, CLS mass, output.

For one query with scores s over the keys, m = max s, l = Σ exp(s - m) and w = Σ exp(s - m) (s - m):

    entropy = log l - w / l        largest weight = 1 / l        log-sum-exp = m + log l

One pass over the keys keeps m, l and w up to date (the online softmax of arXiv:1805.02867); w needs one more term than
l when m grows by δ: exp(-δ) (w - δ l).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .blocks import BLOCK, Bias, Keys, Queries, blocks, default_scale, scores_of
from .jit import cdiv, interpreted, jit, on_device_of, padded, tl, uses_triton

FUSED_KEYS = 768
"""Number of keys from which a CPU computes the entropy alone by PyTorch's fused attention, whose tiles grow there."""

WIDEST_HEAD = 256
"""Largest head dimension for which a program's tiles fit a GPU's shared memory."""


@dataclass(frozen=True)
class RowStatistics:
    """Statistics of each row (one query's attention over the keys), in float32, or float64 for float64 inputs."""

    entropy: Float[Tensor, "batch head query"]
    """-Σ p log p, nats: 0 to log(keys)."""
    maximum: Float[Tensor, "batch head query"]
    """The largest weight, 0 to 1."""
    logsumexp: Float[Tensor, "batch head query"]
    """log Σ exp(score)."""
    cls_mass: Float[Tensor, "batch head query"]
    """The weight of the first key, 0 to 1."""
    output: Float[Tensor, "batch head query d_head"] | None
    """Σ p v in the inputs' dtype; None if no values were given."""


def reference(
    q: Queries, k: Keys, v: Keys | None = None, bias: Bias = None, scale: float | None = None
) -> RowStatistics:
    """Compute the statistics from the whole pattern, as defined."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(wide) @ k.to(wide).transpose(-1, -2) * default_scale(q, scale)
    scores = scores if bias is None else scores + bias
    pattern = scores.softmax(-1)
    entropy = torch.special.entr(pattern).sum(-1)
    output = None if v is None else (pattern @ v.to(wide)).to(v.dtype)
    return RowStatistics(entropy, pattern.amax(-1), scores.logsumexp(-1), pattern[..., 0], output)


def blocked(q: Queries, k: Keys, v: Keys | None = None, bias: Bias = None, scale: float | None = None) -> RowStatistics:
    """Compute the same with a few MiB of scores at a time, on any device and in any float dtype."""
    wide = torch.promote_types(q.dtype, torch.float32)
    rows = [torch.empty(q.shape[:-1], dtype=wide, device=q.device) for _ in range(4)]
    entropy, maximum, logsumexp, cls_mass = rows
    output = None if v is None else torch.empty_like(q)
    with torch.autocast(q.device.type, enabled=False):  # sums need float32
        for block in blocks(q, k):
            scores = scores_of(block, q, k, bias, default_scale(q, scale))
            top = scores.amax(-1, keepdim=True)
            pattern = scores.sub_(top).softmax(-1)  # torch's is fused
            if bias is not None:
                scores.clamp_min_(torch.finfo(wide).min)  # 0 log 0 is 0, where the bias masks a key out
            if output is not None:
                assert v is not None
                output[block] = (pattern @ v[block[:2]].to(wide)).to(output.dtype)
            largest = pattern.amax(-1)
            log_sum = largest.log().neg_()
            maximum[block], cls_mass[block] = largest, pattern[..., 0]
            logsumexp[block] = top[..., 0] + log_sum
            entropy[block] = log_sum - scores.mul_(pattern).sum(-1)
    return RowStatistics(entropy, maximum, logsumexp, cls_mass, output)


@jit
def _kernel(  # type: ignore[no-untyped-def]
    q_ptr,
    k_ptr,
    v_ptr,
    bias_ptr,
    entropy_ptr,
    maximum_ptr,
    logsumexp_ptr,
    cls_ptr,
    out_ptr,
    sqb,
    sqh,
    sqn,
    sqd,
    skb,
    skh,
    skn,
    skd,
    svb,
    svh,
    svn,
    svd,
    sbb,
    sbh,
    sbq,
    sbk,
    sob,
    soh,
    son,
    sod,
    heads,
    queries,
    keys,
    d_head,
    scale,
    HAS_BIAS: tl.constexpr,
    HAS_V: tl.constexpr,
    WIDEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Run one program: ROWS queries of one head of one image, over all keys in steps of COLUMNS."""
    tiles = tl.cdiv(queries, ROWS)
    rows = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)
    head = tl.program_id(0) // tiles
    b, h = (head // heads).to(tl.int64), (head % heads).to(tl.int64)
    width = tl.arange(0, WIDTH)
    here, wide = rows < queries, width < d_head
    q = tl.load(
        q_ptr + b * sqb + h * sqh + rows[:, None] * sqn + width[None, :] * sqd,
        mask=here[:, None] & wide[None, :],
        other=0.0,
    )
    if WIDEN:
        q = q.to(tl.float32)
    m = tl.full([ROWS], -float("inf"), tl.float32)
    total, w, first = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, keys, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        there = columns < keys
        k = tl.load(
            k_ptr + b * skb + h * skh + columns[None, :] * skn + width[:, None] * skd,
            mask=there[None, :] & wide[:, None],
            other=0.0,
        )
        if WIDEN:
            k = k.to(tl.float32)
        s = tl.dot(q, k, input_precision="ieee") * scale
        if HAS_BIAS:
            s += tl.load(
                bias_ptr + b * sbb + h * sbh + rows[:, None] * sbq + columns[None, :] * sbk,
                mask=here[:, None] & there[None, :],
                other=0.0,
            ).to(tl.float32)
        s = tl.where(there[None, :], s, -float("inf"))
        new = tl.maximum(m, tl.max(s, 1))
        grown = tl.where(m == -float("inf"), 0.0, new - m)
        shrink = tl.exp(-grown)
        shrink = tl.where(m == -float("inf"), 0.0, shrink)
        top = tl.where(new == -float("inf"), 0.0, new)  # every key so far is masked out
        e = tl.exp(s - top[:, None])
        below = tl.where(s == -float("inf"), 0.0, s - top[:, None])
        w = shrink * (w - grown * total) + tl.sum(e * below, 1)
        total = shrink * total + tl.sum(e, 1)
        if start == 0:
            first = tl.sum(tl.where((columns == 0)[None, :], s, 0.0), 1)
        if HAS_V:
            v = tl.load(
                v_ptr + b * svb + h * svh + columns[:, None] * svn + width[None, :] * svd,
                mask=there[:, None] & wide[None, :],
                other=0.0,
            )
            if WIDEN:
                v = v.to(tl.float32)
            out = out * shrink[:, None] + tl.dot(e.to(v.dtype), v, input_precision="ieee")
        m = new
    at = (b * heads + h) * queries + rows
    tl.store(entropy_ptr + at, tl.log(total) - w / total, mask=here)
    tl.store(maximum_ptr + at, 1.0 / total, mask=here)
    tl.store(logsumexp_ptr + at, m + tl.log(total), mask=here)
    tl.store(cls_ptr + at, tl.exp(first - m) / total, mask=here)
    if HAS_V:
        tl.store(
            out_ptr + b * sob + h * soh + rows[:, None] * son + width[None, :] * sod,
            (out / total[:, None]).to(out_ptr.dtype.element_ty),
            mask=here[:, None] & wide[None, :],
        )


def attention_statistics(
    q: Queries, k: Keys, v: Keys | None = None, *, bias: Bias = None, scale: float | None = None
) -> RowStatistics:
    """Compute statistics of softmax(scale q kᵀ + bias) without storing the pattern.

    Triton on CUDA in float32, float16 and bfloat16; PyTorch by blocks elsewhere. Not differentiable.

    Args:
        q, k: queries and keys, of any strides.
        v: values; the attention output is computed too where they are given.
        bias: added to the scores, one for all images or heads where that dimension is 1; -inf masks a key out, and
            every row must keep one.
        scale: 1 / √d_head when None.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.
    """
    check_shapes(q, k, bias)
    if v is not None and (v.shape, v.dtype, v.device) != (k.shape, k.dtype, k.device):
        raise ValueError(
            f"v must match k, {k.dtype} {tuple(k.shape)} on {k.device}; got {v.dtype} {tuple(v.shape)} on {v.device}"
        )
    given = [tensor for tensor in (q, k, v) if tensor is not None]
    if not uses_triton(*given) or q.shape[-1] > WIDEST_HEAD:
        return blocked(q, k, v, bias, scale)
    rows = [torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device) for _ in range(4)]
    output = q if v is None else torch.empty_like(q)
    value, added = q if v is None else v, q if bias is None else bias
    strides = *q.stride(), *k.stride(), *value.stride(), *broadcast_strides(added), *output.stride()
    passed = q, k, value, added, *rows, output, *strides
    launch(_kernel, passed, q, k, scale, HAS_BIAS=bias is not None, HAS_V=v is not None)
    entropy, maximum, logsumexp, cls_mass = rows
    return RowStatistics(entropy, maximum, logsumexp, cls_mass, None if v is None else output)


def row_entropy(
    q: Queries, k: Keys, *, bias: Bias = None, scale: float | None = None
) -> Float[Tensor, "batch head query"]:
    """Compute the entropy of `attention_statistics` alone, which is faster on a CPU with many keys and no bias.

    With p the attention, entropy = log-sum-exp - Σ p s, and Σ p s = scale q · Σ p k: the output of attention whose
    values are the keys, which PyTorch fuses. The keys are centred first, which shifts all scores of a row equally. The
    difference keeps an error of float32's spacing at the largest score, a few times that of the pattern's own entropy
    where scores reach the hundreds.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes(q, k, bias)
    suits = bias is None and k.shape[2] >= FUSED_KEYS and q.dtype in (torch.float32, torch.float64)
    here = q.device.type == k.device.type == "cpu" and not uses_triton(q, k)
    operator = "_scaled_dot_product_flash_attention_for_cpu"  # the only kernel that returns the log-sum-exp
    if not (suits and here and hasattr(torch.ops.aten, operator)):
        return attention_statistics(q, k, bias=bias, scale=scale).entropy
    scale = default_scale(q, scale)
    found = torch.empty(q.shape[:-1], dtype=q.dtype)
    together = max(1, BLOCK // q[0].numel())  # images; memory stays small beside one layer's patterns
    for image in range(0, len(q), together):
        at = slice(image, image + together)
        keys = k[at] - k[at].mean(2, keepdim=True)
        mean, logsumexp = getattr(torch.ops.aten, operator)(q[at], keys, keys, scale=scale)
        found[at] = logsumexp - mean.mul_(q[at]).sum(-1).mul_(scale)
    return found.clamp_min_(0)


def broadcast_strides(bias: Tensor) -> list[int]:
    """Return a bias's strides, 0 where its size is 1, which broadcasts that dimension."""
    return [0 if size == 1 else stride for size, stride in zip(bias.shape, bias.stride(), strict=True)]


def launch(kernel: Any, given: Sequence[Any], q: Queries, k: Keys, scale: float | None, **flags: bool) -> None:
    """Start a kernel with one program for each tile of queries of each head and image.

    Args:
        kernel: takes the tensors and strides in `given`, then heads, queries, keys, d_head and scale, then `flags`.
    """
    (batch, heads, queries, d_head), tile = q.shape, tile_of(q)
    sizes = {"ROWS": tile, "COLUMNS": tile, "WIDTH": padded(d_head)}
    with on_device_of(q):
        kernel[(cdiv(queries, tile) * batch * heads,)](
            *given, heads, queries, k.shape[2], d_head, default_scale(q, scale), **flags, WIDEN=interpreted(), **sizes
        )


def tile_of(q: Tensor) -> int:
    """Return the number of queries and keys per tile: as many as fit a GPU's shared memory."""
    narrow, wide = q.shape[-1] <= 64, q.shape[-1] > 128
    if q.dtype.itemsize == 2:
        return 64 if narrow else 16 if wide else 32
    return 32 if narrow else 16


def check_shapes(q: Tensor, k: Tensor, bias: Tensor | None) -> None:
    """Raise a ValueError unless q [batch, head, query, d], k [batch, head, key, d] and the bias fit together."""
    fits = q.dim() == k.dim() == 4 and q.shape[:2] == k.shape[:2] and q.shape[3] == k.shape[3] and k.shape[2] > 0
    if not fits or q.dtype != k.dtype or q.device != k.device or not q.is_floating_point():
        raise ValueError(
            "q and k must be floats of one dtype on one device, [batch, head, query, d_head] and [batch, head, key, "
            f"d_head]; got {q.dtype} {tuple(q.shape)} on {q.device} and {k.dtype} {tuple(k.shape)} on {k.device}"
        )
    if bias is None:
        return
    whole = (*q.shape[:3], k.shape[2])
    if (
        bias.dim() != 4
        or any(b not in (1, w) for b, w in zip(bias.shape[:2], whole[:2], strict=True))
        or (tuple(bias.shape[2:]) != whole[2:])
    ):
        raise ValueError(f"bias must be {whole}, or 1 in the first two; got {tuple(bias.shape)}")
    if bias.device != q.device:
        raise ValueError(f"bias must be on the queries' device, {q.device}; got {bias.device}")
