"""Matching of equal features between two SAEs, as for stability across seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.statistics.results import Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked

from .directions import unit_directions
from .results import known_only

if TYPE_CHECKING:
    import pandas as pd
    from sae_lens import SAE

EXACT_UP_TO = 4096
"""Latents of the smaller SAE up to which the best assignment is computed exactly: a few seconds and 0.3 GiB."""
_BLOCK = 2**24  # cosines per block: 64 MiB
_ROUNDS = 100  # rounds of greedy matching; each about halves the rest, unless directions repeat


@dataclass(frozen=True, repr=False)
class FeatureMatch(Result):
    """For each latent of SAE a one latent of SAE b, matched by decoder directions; on the CPU."""

    match: Int[Tensor, " d_sae_a"]
    """Index of the latent of b; -1 for latents that are left over (b has fewer latents, or the direction is zero)."""
    cosine: Float[Tensor, " d_sae_a"]
    """Cosine of the two directions, -1 to 1; NaN where there is no match."""
    nearest: Int[Tensor, " d_sae_a"]
    """Index of the latent of b with the nearest direction, which several latents of a may share."""
    nearest_cosine: Float[Tensor, " d_sae_a"]
    """Cosine with the nearest direction, an upper bound of the match's; NaN where the direction is zero."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per latent of a: columns of `labels`, feature, match (missing if there is none), cosine,
        nearest, nearest_cosine."""
        import pandas as pd

        frame = pd.DataFrame({"feature": np.arange(len(self.match))} | {n: v.numpy() for n, v in vars(self).items()})
        frame["match"] = known_only(frame["match"])
        return labelled(frame, labels)


@checked
@torch.no_grad()
def match_features(sae_a: SAE, sae_b: SAE, *, exact_up_to: int = EXACT_UP_TO) -> FeatureMatch:
    """Match the latents of two SAEs one to one by the cosine of their directions (`latent_directions`).

    If the smaller SAE has at most `exact_up_to` latents, the match has the largest possible sum of cosines (Hungarian
    algorithm, O(n^3)). Otherwise it is greedy, pair by pair from the highest cosine down, until at most `exact_up_to`
    latents are left, which are matched exactly; the greedy match is found by pairing mutual nearest neighbours in
    rounds, O(n^2 d), with one block of cosines in memory. If thousands of directions repeat, latents can be left
    unmatched after 100 rounds.

    Args:
        sae_a, sae_b: published SAEs of equal width, with any numbers of latents.
        exact_up_to: largest number of latents that is matched exactly.

    Raises:
        ValueError: the SAEs differ in width, a decoder is not affine, or hooks are left in an SAE.

    Source: the mean of `nearest_cosine` is the mean max cosine similarity of arXiv:2309.08600.
    """
    a = unit_directions(sae_a, name="the first SAE")
    b = unit_directions(sae_b, name="the second SAE").to(a)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"features are matched by their directions in one space; got SAEs of width {a.shape[1]} and "
            f"{b.shape[1]}: give two SAEs of the same model and hook point"
        )
    nearest_cosine, nearest = _nearest(a, b)[:2]
    nearest_cosine = torch.where(a.any(1), nearest_cosine, torch.nan)
    match = torch.full((len(a),), -1, device=a.device)
    rows, columns = (a.any(1).nonzero()[:, 0], b.any(1).nonzero()[:, 0])
    for _ in range(_ROUNDS):
        if min(len(rows), len(columns)) <= exact_up_to:
            break
        paired, to = _mutual(a[rows], b[columns])
        match[rows[paired]] = columns[to]
        rows, columns = _without(rows, paired), _without(columns, to)
    else:
        rows = rows[:0]
    left = _assign(a[rows], b[columns])
    match[rows[left[0]]] = columns[left[1]]
    cosine = torch.where(match >= 0, (a * b[match]).sum(1), torch.nan)
    return FeatureMatch(match.cpu(), cosine.cpu(), nearest.cpu(), nearest_cosine.cpu())


def _nearest(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the highest cosine of each row of a and its index, and the same for each row of b, block by block."""
    best_a: list[tuple[Tensor, Tensor]] = []
    value_b, index_b = a.new_full((len(b),), -torch.inf), torch.zeros(len(b), dtype=torch.int64, device=a.device)
    done = 0
    for block in a.split(max(1, _BLOCK // max(1, len(b)))):
        cosines = block @ b.T
        best_a.append(tuple(cosines.max(1)))
        value, index = cosines.max(0)
        index_b = torch.where(value > value_b, index + done, index_b)
        value_b = torch.maximum(value, value_b)
        done += len(block)
    value_a, index_a = (torch.cat(part) for part in zip(*best_a, strict=True))
    return value_a, index_a, value_b, index_b


def _mutual(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Return the pairs that are each other's nearest, which every greedy match contains."""
    _, to_b, _, to_a = _nearest(a, b)
    paired = (to_a[to_b] == torch.arange(len(a), device=a.device)).nonzero()[:, 0]
    return paired, to_b[paired]


def _assign(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> tuple[Tensor, Tensor]:
    """Return the assignment with the largest sum of cosines."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment((a @ b.T).numpy(force=True), maximize=True)
    return torch.from_numpy(rows).to(a.device), torch.from_numpy(columns).to(a.device)


def _without(index: Int[Tensor, " n"], places: Int[Tensor, " pair"]) -> Int[Tensor, " left"]:
    kept = torch.ones(len(index), dtype=torch.bool, device=index.device)
    kept[places] = False
    return index[kept]
