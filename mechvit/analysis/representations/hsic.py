"""HSIC of linear kernels from sums over examples: the statistic under CKA, without matrices of examples by examples.

Each example is widened to x̂ = (x, |x|², 1). The [d_a + 2, d_b + 2] sum of x̂ᵀŷ over examples holds all that the biased
and the unbiased estimator need, so that sums over a stream give what one batch of all examples would.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def widened(
    x: Float[Tensor, "layer example d"], origin: Float[Tensor, "layer 1 d"]
) -> Float[Tensor, "layer example d+2"]:
    """Compute (x - origin, |x - origin|², 1) in float64; an origin near the examples keeps the sums small."""
    x = x.double() - origin.double()
    return torch.cat([x, x.square().sum(-1, keepdim=True), torch.ones_like(x[..., :1])], dim=-1)


def hsic(moments: Float[Tensor, "*pair widened_a widened_b"], debiased: bool) -> Float[Tensor, "*pair"]:
    """Compute HSIC of linear kernels from the sum over n examples of (x, |x|², 1)ᵀ (y, |y|², 1).

    Biased: |Xᵀ H Y|² / (n - 1)², with H the centring matrix. Unbiased, with K and L without their diagonals:

        (tr(K L) + (1ᵀK1)(1ᵀL1) / ((n - 1)(n - 2)) - 2 / (n - 2) 1ᵀKL1) / (n (n - 3))

    Source: arXiv:1905.00414, equation 3; arXiv:2010.15327, equation 3.
    """
    products, x_sum, y_sum = moments[..., :-2, :-2], moments[..., :-2, -1], moments[..., -1, :-2]
    n = moments[..., -1, -1]
    if not debiased:
        centred = products - x_sum[..., :, None] * y_sum[..., None, :] / n[..., None, None]
        return centred.square().sum((-2, -1)) / (n - 1).square()
    diagonal = moments[..., -2, -2]  # sum of |x|² |y|²
    trace = products.square().sum((-2, -1)) - diagonal
    all_x = x_sum.square().sum(-1) - moments[..., -2, -1]
    all_y = y_sum.square().sum(-1) - moments[..., -1, -2]
    through = torch.einsum("...d,...de,...e->...", x_sum, products, y_sum) + diagonal
    through = through - (x_sum * moments[..., :-2, -2]).sum(-1) - (y_sum * moments[..., -2, :-2]).sum(-1)
    return (trace + all_x * all_y / ((n - 1) * (n - 2)) - 2 / (n - 2) * through) / (n * (n - 3))


class Moments:
    """Sums over examples of the products of two views' widened layers, by group of images; float64."""

    def __init__(self, every_pair: bool = False) -> None:
        self.every_pair = every_pair
        self.form = "and,bne->abde" if every_pair else "and,ane->ade"
        self.sums: Tensor | None = None  # [group, pairs of layers, d_a + 2, d_b + 2]

    def add(
        self,
        x: Float[Tensor, "layer_a example widened_a"],
        y: Float[Tensor, "layer_b example widened_b"],
        group: Int[Tensor, " image"],
        groups: int,
    ) -> None:
        """Add a batch of images, each of which is one example."""
        for which in group.unique().tolist():
            rows = group == which
            part = torch.einsum(self.form, x[:, rows], y[:, rows])
            if self.sums is None:
                self.sums = part.new_zeros(groups, *part.shape)
            self.sums[which] += part

    def all(self) -> Float[Tensor, "*pair widened_a widened_b"]:
        """Return the sums over all images."""
        assert self.sums is not None
        return self.sums.sum(0)

    def without(self, group: int) -> Float[Tensor, "*pair widened_a widened_b"]:
        """Return the sums over all images outside one group."""
        assert self.sums is not None
        return self.sums.sum(0) - self.sums[group]


def cka_of(x: Float[Tensor, "example d_a"], y: Float[Tensor, "example d_b"], *, debiased: bool = True) -> float:
    """Compute linear CKA of two matrices in memory; estimators as in `linear_cka`."""
    x, y = (widened(part[None].double(), part[None, :1].double()) for part in (x, y))
    xy, xx, yy = (hsic(a[0].mT @ b[0], debiased) for a, b in ((x, y), (x, x), (y, y)))
    return float(xy / (xx * yy).sqrt())
