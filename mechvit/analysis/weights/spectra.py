"""Singular values and directions of a matrix from the eigenvectors of its Gram matrix.

For A of m <= n, A Aᵀ = U Σ² Uᵀ, and the rows of Uᵀ A are σ vᵀ. Squaring costs half of the digits: eigenvalues are right
to the rounding of the largest, so that only singular values above 1e-4 of the largest keep twelve digits. The rows of
the others span what is left once the large ones are taken out, to full precision; they are decomposed in the same way,
relative to their own largest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_ALONE = 1e-6
"""Ratio of the smallest to the largest eigenvalue above which eigenvalues alone give singular values to 1e-9."""
_ACCURATE = 1e-8
"""Ratio to the largest eigenvalue above which a singular value is right to twelve digits: 1e-4 squared."""


class SingularDecomposition(NamedTuple):
    """Thin singular value decomposition; rank is the smaller side."""

    left: Float[Tensor, "rows rank"]
    values: Float[Tensor, " rank"]
    """Singular values, descending."""
    right: Float[Tensor, "columns rank"]
    """Right directions; 0 where the singular value is."""


def singular_decomposition(matrix: Float[Tensor, "rows columns"]) -> SingularDecomposition:
    """Compute the decomposition of a float64 matrix, with singular values right to the rounding of the largest."""
    if matrix.shape[0] > matrix.shape[1]:
        left, values, right = singular_decomposition(matrix.T)
        return SingularDecomposition(right, values, left)
    left, values, rows = _rows(matrix, torch.finfo(matrix.dtype).eps * float(matrix.norm()))
    return SingularDecomposition(left, values, torch.nn.functional.normalize(rows, dim=1, eps=1e-300).T)


def singular_values(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, " rank"]:
    """Compute the singular values alone, descending; without eigenvectors where none is far below the largest."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    eigenvalues = torch.linalg.eigvalsh(wide @ wide.T).flip(0)
    if eigenvalues[-1] > _ALONE * eigenvalues[0]:
        return eigenvalues.sqrt()
    return singular_decomposition(matrix).values


def _rows(
    matrix: Float[Tensor, "rows columns"], rounding: float
) -> tuple[Float[Tensor, "rows rows"], Float[Tensor, " rows"], Float[Tensor, "rows columns"]]:
    """Return left directions, singular values (descending) and value times right direction."""
    eigenvalues, left = torch.linalg.eigh(matrix @ matrix.T)
    eigenvalues, left = eigenvalues.flip(0), left.flip(1)
    rows = left.T @ matrix
    certain = int((eigenvalues > _ACCURATE * eigenvalues[0]).sum())
    if 0 < certain < len(rows) and float(rows[certain:].norm()) > rounding:
        turned, _, smaller = _rows(rows[certain:], rounding)
        left = torch.cat([left[:, :certain], left[:, certain:] @ turned], dim=1)
        rows = torch.cat([rows[:certain], smaller])
    values, order = rows.norm(dim=1).sort(descending=True, stable=True)
    return left[:, order], values, rows[order]
