"""Cosines between two models' weight matrices once heads and neurons have been matched.

A block computes the same function when its heads, or its MLP's neurons, change places, so that each is compared with
the one that resembles it most: a linear assignment on the sum of the cosines of all matrices that meet in a head (its
rows of q, k and v, its columns of o) or in a neuron (its row of fc1 and of a gate, its column of fc2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from mechvit.models.layers.block import Block

SAMPLED = 512
"""Number of neurons of the base, evenly spaced, for which a partner is sought among all of the tuned model's."""
Units: TypeAlias = "Mapping[str, Float[Tensor, 'unit weight']]"
"""Matrix name -> its weights, one row per head or neuron."""
OtherUnits: TypeAlias = "Mapping[str, Float[Tensor, 'other_unit weight']]"
"""The same of another model, of which more may be there."""


class MatchedMatrix(NamedTuple):
    """Cosines between one weight matrix of two models."""

    matrix: str
    """Name of the weight, as in `blocks.3.attn.q.weight`."""
    plain: float
    """Cosine of the matrices as they stand."""
    matched: float
    """Cosine after matching; the same where `plain` was enough."""
    moved: int
    """Number of units (heads, neurons) that were matched with one at another place."""
    units: int
    """Number of units that were compared."""


def block_units(block: Block) -> dict[str, dict[str, Tensor]]:
    """Return a block's matrices by branch, one row per head or neuron."""
    attn, mlp = block.attn, block.mlp
    heads = {name: getattr(attn, name).weight.unflatten(0, (attn.n_heads, -1)).flatten(1) for name in "qkv"}
    heads["o"] = attn.o.weight.T.unflatten(0, (attn.n_heads, -1)).flatten(1)
    neurons = {"fc1": mlp.fc1.weight, "fc2": mlp.fc2.weight.T}
    if mlp.gate is not None:
        neurons["gate"] = mlp.gate.weight
    return {"attn": heads, "mlp": neurons}


def matched_cosines(prefix: str, base: Units, tuned: Units, enough: float) -> list[MatchedMatrix]:
    """Compare the matrices of one branch; units are matched unless every plain cosine exceeds `enough`.

    Args:
        prefix: beginning of the names of the weights.
        base, tuned: matrices of the same names and shapes, on one device.
        enough: a plain cosine above which nothing is matched.
    """
    count = len(next(iter(base.values())))
    rows = _sampled(count, next(iter(base.values())).device)
    own = {name: matrix[rows].detach().float() for name, matrix in base.items()}
    plain = {name: _cosine(own[name], matrix[rows].float()) for name, matrix in tuned.items()}
    partner = rows
    if not all(cosine > enough for cosine in plain.values() if cosine == cosine):
        partner = best_partners(own, {name: matrix.float() for name, matrix in tuned.items()})
    moved = int((partner != rows).sum())
    return [
        MatchedMatrix(f"{prefix}.{name}.weight", plain[name], _cosine(own[name], tuned[name][partner].float()), *found)
        for name, found in ((name, (moved, len(rows))) for name in base)
    ]


def best_partners(base: Units, tuned: OtherUnits) -> Int[Tensor, " unit"]:
    """Return, for each unit of the base, the index of its partner; each of the tuned model's is taken at most once."""
    from scipy.optimize import linear_sum_assignment

    similar = sum(_normed(base[name]) @ _normed(tuned[name]).T for name in base)
    assert isinstance(similar, Tensor)
    _, partner = linear_sum_assignment(similar.cpu().numpy(), maximize=True)
    return torch.as_tensor(partner, device=similar.device)


def _sampled(count: int, device: torch.device) -> Int[Tensor, " unit"]:
    chosen = torch.linspace(0, count - 1, min(count, SAMPLED), device=device)
    return chosen.round().long()


def _normed(rows: Float[Tensor, "unit weight"]) -> Float[Tensor, "unit weight"]:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)


def _cosine(first: Tensor, second: Tensor) -> float:
    """Return the cosine of two matrices; NaN where both are zero, 0 where one is."""
    norms = float(first.norm()) * float(second.norm())
    if norms:
        return float((first * second).sum()) / norms
    return float("nan") if not bool(first.any() or second.any()) else 0.0
