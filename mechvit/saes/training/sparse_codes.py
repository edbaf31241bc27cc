"""The few kept entries of a [batch, d_sae] matrix, and products that touch only these.

An SAE with 32 active latents of 3,072 needs one dense product, the encoder's. Decoding and all gradients involve only
the kept entries: in compressed rows for the decoder, ordered by latent for the weights' gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mechvit.kernels.sparse_products import offsets_of, sampled_products, sparse_times_dense

_ROWS = 256
"""Tokens encoded at once on a CPU: their pre-activations fit in the processor's cache."""

_ENTRIES = 2**27
"""Pre-activations held at once on other devices: few blocks, since the host waits for each one's count."""


@dataclass(frozen=True)
class SparseEntries:
    """Entries of a [n_rows, n_columns] matrix in row-major order: their flat indices and their values."""

    index: Int[Tensor, " entry"]
    values: Float[Tensor, " entry"]
    n_rows: int
    n_columns: int

    @cached_property
    def rows(self) -> Int[Tensor, " entry"]:
        """Token (row) of each entry."""
        return self.index.div(self.n_columns, rounding_mode="floor")

    @cached_property
    def columns(self) -> Int[Tensor, " entry"]:
        """Latent (column) of each entry."""
        return self.index - self.rows * self.n_columns

    @cached_property
    def by_column(self) -> Int[Tensor, " entry"]:
        """Permutation that sorts the entries by latent, then by token."""
        if self.columns.is_cuda or self.n_columns > 2**16:
            return torch.argsort(self.columns, stable=True)
        # numpy uses radix sort for 16-bit integers, which is many times as fast.
        return torch.from_numpy(np.argsort(self.columns.numpy().astype(np.uint16), kind="stable"))

    @cached_property
    def offsets(self) -> Int[Tensor, " n_rows_plus_1"]:
        """Index of each token's first entry, and the number of entries."""
        return offsets_of(self.rows, self.n_rows)

    def times(self, values: Float[Tensor, " entry"], dense: Float[Tensor, "column d"]) -> Float[Tensor, "row d"]:
        """Compute `matrix @ dense` for the matrix that has `values` at the kept positions."""
        return sparse_times_dense(self.offsets, self.columns, values, dense)

    def transposed_times(self, values: Float[Tensor, " entry"], dense: Float[Tensor, "row d"]) -> Tensor:
        """Compute `matrix.T @ dense`, [column, d]."""
        order, offsets = self.by_column, offsets_of(self.columns, self.n_columns)
        return sparse_times_dense(offsets, self.rows[order], values[order], dense.contiguous())

    def samples(self, left: Float[Tensor, "row d"], right: Float[Tensor, "column d"]) -> Float[Tensor, " entry"]:
        """Compute `left @ right.T` at the kept positions."""
        return sampled_products(self.offsets, self.rows, self.columns, left.contiguous(), right)

    def dense(self, values: Shaped[Tensor, " entry"]) -> Shaped[Tensor, "row column"]:
        """Return the dense matrix with `values` at the kept positions and zeros elsewhere."""
        flat = values.new_zeros(self.n_rows * self.n_columns)
        return flat.index_copy_(0, self.index, values).view(self.n_rows, self.n_columns)


@dataclass(frozen=True)
class Codes:
    """Codes [token, latent] of a training step, with the interface of the sparse tensor that sae-lens's trainer reads.

    The trainer sums them over tokens, for which torch's own COO tensor would sort all entries twice per step.
    """

    kept: SparseEntries
    entries: Shaped[Tensor, " entry"]
    """In the model's dtype, or bool: which entries are non-zero."""
    is_sparse = True

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of tokens and latents."""
        return self.kept.n_rows, self.kept.n_columns

    def bool(self) -> Codes:
        """Return whether each entry is non-zero."""
        return Codes(self.kept, self.entries.bool())

    def float(self) -> Codes:
        """Return the codes with entries in float32."""
        return Codes(self.kept, self.entries.float())

    def sum(self, dim: int) -> Tensor:
        """Return the sum over tokens (0 or -2), [latent], or over latents (1 or -1), [token]."""
        where = self.kept.columns if dim in (0, -2) else self.kept.rows
        return self.entries.new_zeros(self.shape[(dim + 1) % 2]).index_add_(0, where, self.entries)

    def values(self) -> Shaped[Tensor, " entry"]:
        """Return the entries."""
        return self.entries

    def to_dense(self) -> Shaped[Tensor, "token latent"]:
        """Return the dense codes."""
        return self.kept.dense(self.entries)


@torch.no_grad()
def encode_above(
    x: Float[Tensor, "token d_in"],
    weight: Float[Tensor, "d_in d_sae"],
    bias: Float[Tensor, " d_sae"],
    floor: float | Float[Tensor, " d_sae"] = 0.0,
    *,
    max_density: float = 1.0,
) -> SparseEntries | None:
    """Return the entries of `x @ weight + bias` above `floor` (one number or one per latent) without the matrix.

    Returns None if more than `max_density` of the first rows' entries lie above the floor: sparse products would then
    be slower than dense ones.
    """
    d_sae = weight.shape[1]
    places, values = [], []
    least = floor - bias  # so that the bias is added to the few kept entries only
    together = _ROWS if x.device.type == "cpu" else max(1, _ENTRIES // d_sae)
    product = x.new_empty(min(together, len(x)), d_sae)
    for start in range(0, len(x), together):
        rows = x[start : start + together]
        pre = torch.mm(rows, weight, out=product[: len(rows)])
        place = nonzero(pre > least)
        if start == 0 and len(place) > max_density * pre.numel():
            return None
        places.append(place + start * d_sae)
        values.append(pre.flatten()[place] + bias[place % d_sae])
    return SparseEntries(torch.cat(places), torch.cat(values), len(x), d_sae)


def nonzero(mask: Bool[Tensor, "row column"]) -> Int[Tensor, " entry"]:
    """Return `mask.flatten().nonzero()`, faster if few entries are true: eight are tested together."""
    flat = mask.flatten()
    if mask.device.type != "cpu" or flat.numel() % 8:
        return flat.nonzero().squeeze(1)
    words = flat.view(torch.int64).nonzero().squeeze(1)
    within = flat.view(-1, 8)[words].nonzero()
    return words[within[:, 0]] * 8 + within[:, 1]


class _Encode(torch.autograd.Function):
    """`((x - b_dec) @ W_enc + b_enc)` at the kept positions; its value is known, so only gradients are computed."""

    @staticmethod
    def forward(ctx, x, W_enc, b_enc, b_dec, pre, kept):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, W_enc, b_dec)
        ctx.kept = kept
        return pre.clone()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, W_enc, b_dec = ctx.saved_tensors
        grad_W = ctx.kept.transposed_times(grad, x - b_dec).T
        grad_b = grad.new_zeros(W_enc.shape[1]).index_add_(0, ctx.kept.columns, grad)
        return None, grad_W, grad_b, -(W_enc @ grad_b), None, None


class _Decode(torch.autograd.Function):
    """`matrix(values) @ W_dec + b_dec`."""

    @staticmethod
    def forward(ctx, values, W_dec, b_dec, kept):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(values, W_dec)
        ctx.kept = kept
        return kept.times(values, W_dec) + b_dec

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        values, W_dec = ctx.saved_tensors
        grad_values = ctx.kept.samples(grad, W_dec)
        return grad_values, ctx.kept.transposed_times(values, grad), grad.sum(0), None


def sparse_encode(
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    b_dec: Float[Tensor, " d_in"],
    pre: Float[Tensor, " entry"],
    kept: SparseEntries,
) -> Float[Tensor, " entry"]:
    """Return `pre`, the values of `(x - b_dec) @ W_enc + b_enc` at the kept positions, with gradients."""
    return _Encode.apply(x, W_enc, b_enc, b_dec, pre, kept)


def sparse_decode(
    values: Float[Tensor, " entry"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    kept: SparseEntries,
) -> Float[Tensor, "token d_in"]:
    """Return the reconstruction from the kept entries' values, with gradients."""
    return _Decode.apply(values, W_dec, b_dec, kept)
