"""Products with a sparse [row, column] matrix in compressed rows (CSR): an SAE's decoder.

`sparse_times_dense` is the decoder, and, compressed by latents instead of tokens, the gradient of both weights;
`sampled_products` is the gradient of the entries. Neither forms the dense [token, latent] matrix.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .jit import cdiv, jit, on_device_of, padded, tl, uses_triton

WIDEST = 512
"""Dimensions that a program adds up at a time."""


def offsets_of(indices: Int[Tensor, " entry"], n: int) -> Int[Tensor, " n_plus_1"]:
    """Return the offset of each row's first entry, and the end of the last, for entries sorted by row."""
    counts = torch.bincount(indices, minlength=n)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def reference(
    offsets: Int[Tensor, " row_plus_1"],
    columns: Int[Tensor, " entry"],
    values: Float[Tensor, " entry"],
    dense: Float[Tensor, "column d"],
) -> Float[Tensor, "row d"]:
    """Compute `sparse_times_dense` through the dense matrix, as defined."""
    n_rows = len(offsets) - 1
    matrix = values.new_zeros(n_rows, len(dense))
    rows = torch.repeat_interleave(torch.arange(n_rows, device=offsets.device), offsets.diff())
    return matrix.index_put((rows, columns), values, accumulate=True) @ dense


def reference_samples(
    offsets: Int[Tensor, " row_plus_1"],
    columns: Int[Tensor, " entry"],
    left: Float[Tensor, "row d"],
    right: Float[Tensor, "column d"],
) -> Float[Tensor, " entry"]:
    """Compute `sampled_products` through the dense matrix, as defined."""
    rows = torch.repeat_interleave(torch.arange(len(left), device=offsets.device), offsets.diff())
    return (left @ right.T)[rows, columns]


@jit
def _times_kernel(  # type: ignore[no-untyped-def]
    offset_ptr, column_ptr, value_ptr, dense_ptr, out_ptr, sd, so, width, WIDTH: tl.constexpr
):
    """Run one program: WIDTH dimensions of one row."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    here = d < width
    total = tl.zeros([WIDTH], tl.float32)
    for entry in range(tl.load(offset_ptr + row), tl.load(offset_ptr + row + 1)):
        column = tl.load(column_ptr + entry).to(tl.int64)
        value = tl.load(value_ptr + entry).to(tl.float32)
        total += value * tl.load(dense_ptr + column * sd + d, mask=here, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * so + d, total.to(out_ptr.dtype.element_ty), mask=here)


@jit
def _samples_kernel(  # type: ignore[no-untyped-def]
    row_ptr, column_ptr, left_ptr, right_ptr, out_ptr, sl, sr, width, WIDTH: tl.constexpr
):
    """Run one program: one entry."""
    entry = tl.program_id(0).to(tl.int64)
    row, column = tl.load(row_ptr + entry).to(tl.int64), tl.load(column_ptr + entry).to(tl.int64)
    total = tl.zeros([WIDTH], tl.float32)
    for start in range(0, width, WIDTH):
        d = start + tl.arange(0, WIDTH)
        here = d < width
        left = tl.load(left_ptr + row * sl + d, mask=here, other=0.0).to(tl.float32)
        right = tl.load(right_ptr + column * sr + d, mask=here, other=0.0).to(tl.float32)
        total += left * right
    tl.store(out_ptr + entry, tl.sum(total, 0).to(out_ptr.dtype.element_ty))


def csr(offsets: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the matrix as torch's own CSR tensor, unchecked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(offsets, columns, values, size, check_invariants=False)


def sparse_times_dense(
    offsets: Int[Tensor, " row_plus_1"],
    columns: Int[Tensor, " entry"],
    values: Float[Tensor, " entry"],
    dense: Float[Tensor, "column d"],
) -> Float[Tensor, "row d"]:
    """Compute matrix(values) @ dense: by Triton on CUDA, by torch's CSR product elsewhere. Not differentiable by
    itself.

    Args:
        offsets: the offset of each row's first entry, and the number of entries last.
        columns, values: column and value of each entry, row by row.
        dense: the matrix on the right, with contiguous rows.
    """
    n_rows = len(offsets) - 1
    if not uses_triton(values, dense) or dense.stride(1) != 1:
        return csr(offsets, columns, values, (n_rows, len(dense))) @ dense
    width = dense.shape[1]
    out = torch.empty(n_rows, width, dtype=dense.dtype, device=dense.device)
    tile = min(WIDEST, padded(width))
    with on_device_of(dense):
        _times_kernel[(n_rows, cdiv(width, tile))](
            offsets, columns, values, dense, out, dense.stride(0), out.stride(0), width, WIDTH=tile
        )
    return out


def sampled_products(
    offsets: Int[Tensor, " row_plus_1"],
    rows: Int[Tensor, " entry"],
    columns: Int[Tensor, " entry"],
    left: Float[Tensor, "row d"],
    right: Float[Tensor, "column d"],
) -> Float[Tensor, " entry"]:
    """Compute (left @ rightᵀ)[row, column] of each entry: by Triton on CUDA, by torch elsewhere. Not differentiable by
    itself.

    Args:
        offsets: the offset of each row's first entry, and the number of entries last.
        rows, columns: row and column of each entry, row by row.
        left, right: the factors, with contiguous rows.
    """
    if not uses_triton(left, right) or left.stride(1) != 1 or right.stride(1) != 1:
        pattern = csr(offsets, columns, left.new_zeros(len(columns)), (len(left), len(right)))
        return torch.sparse.sampled_addmm(pattern, left.contiguous(), right.T, beta=0.0).values()
    out = torch.empty(len(columns), dtype=left.dtype, device=left.device)
    width = left.shape[1]
    if len(columns):
        tile = min(WIDEST, padded(width))
        with on_device_of(left):
            _samples_kernel[(len(columns),)](
                rows, columns, left, right, out, left.stride(0), right.stride(0), width, WIDTH=tile
            )
    return out
