"""Selection of latents to ablate: those that a corruption changes most, and controls of matched firing rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechvit.analysis.statistics.results import Result
from mechvit.arguments import checked
from mechvit.settings_checks import COUNT, Range, check_number

from .corruption_change import LatentChange
from .directions import latent_directions

if TYPE_CHECKING:
    import pandas as pd
    from sae_lens import SAE

CALIPER = 1.2
"""Largest ratio, in either direction, of the firing rates of a sensitive latent and its control."""
SENSITIVE, CONTROL = "sensitive", "control"


@dataclass(frozen=True, kw_only=True, repr=False)
class FeatureSets(Result):
    """Latents to ablate: the most sensitive ones, and several draws of as many controls of matched firing rate."""

    sensitive: Int[Tensor, " n"]
    """Latents in order of decreasing sensitivity."""
    controls: Int[Tensor, "draw n"]
    """The i-th of each draw is matched to the i-th sensitive latent; none is sensitive or repeated within a draw."""
    unmatched: Int[Tensor, " m"]
    """Equally sensitive latents that are left out because no other latent within the caliper is available."""
    sensitivity: Float[Tensor, " d_sae"]
    """|mean corrupted - mean clean activation| x |direction|: how far the latent's change moves the activations."""
    rate: Float[Tensor, " d_sae"]
    """Share of tokens, clean and corrupted, on which each latent fires."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per latent of a set: columns of `labels`, kind (sensitive or control), draw, place, feature,
        sensitivity, rate, and matched (the sensitive latent in the same place)."""
        import pandas as pd

        parts = []
        for kind, draw, latents in self.each():
            about = {**labels, "kind": kind, "draw": draw, "place": np.arange(len(latents)), "feature": latents.numpy()}
            values = {"sensitivity": self.sensitivity[latents].numpy(), "rate": self.rate[latents].numpy()}
            parts.append(pd.DataFrame({**about, **values, "matched": self.sensitive.numpy()}))
        return pd.concat(parts, ignore_index=True)

    def each(self) -> list[tuple[str, int, Int[Tensor, " n"]]]:
        """Return the kind, draw and latents of every set."""
        return [(SENSITIVE, 0, self.sensitive), *((CONTROL, i, row) for i, row in enumerate(self.controls))]

    def mean_rate(self, kind: str, n: int) -> float:
        """Return the mean firing rate of the first n latents of a kind, for controls over all draws."""
        latents = self.sensitive if kind == SENSITIVE else self.controls
        return float(self.rate[latents[..., :n]].mean())


@checked
def sensitive_features(
    sae: SAE, change: LatentChange, n: int, *, draws: int = 10, caliper: float = CALIPER, seed: int = 0
) -> FeatureSets:
    """Select the latents that a corruption changes most, and controls of matched firing rate.

    In every draw, each sensitive latent has its own control within the caliper: an assignment problem is solved whose
    costs are the distances of the log firing rates plus a random term of up to half the caliper. If no complete
    assignment exists, sensitive latents are left out, the least sensitive first, and listed in `unmatched`, and the
    next in order replace them. Latents that never fire are never selected.

    Args:
        sae: the SAE of the latents.
        change: one model's result of `feature_change`, on images other than those that the ablation is measured on.
        n: number of sensitive latents; fewer are returned if no more can be matched.
        draws: number of draws of controls.
        caliper: the largest ratio of the firing rates of a latent and its control, above 1.
        seed: seed of the draws.

    Raises:
        ValueError: fewer than 2 n latents fire, no latent has a control, a count is below 1, the caliper is at most 1,
            or the SAE's latents have no directions (`latent_directions`).

    Source: caliper matching on one covariate, Cochran and Rubin, Sankhya A 35 (1973).
    """
    from scipy.optimize import linear_sum_assignment

    check_number("n", n, COUNT)
    check_number("draws", draws, COUNT)
    check_number("caliper", caliper, Range(1, open_below=True, whole=False))
    rate, d_sae = change.rate, sae.cfg.d_sae
    sensitivity = change.difference.abs() * latent_directions(sae).double().cpu().norm(dim=1)
    alive = ((rate > 0) & sensitivity.isfinite()).nonzero()[:, 0]
    if len(alive) < 2 * n:
        raise ValueError(
            f"{n} latents and as many controls must be among those that fire, and {len(alive)} of {d_sae} do: choose "
            f"at most {len(alive) // 2}"
        )
    order = alive[sensitivity[alive].argsort(descending=True, stable=True)]
    looked_at, kept = n, np.zeros(0, dtype=bool)
    while looked_at <= len(alive) // 2 and kept.sum() < n:
        most, others = order[:looked_at], order[looked_at:].sort().values
        distance = (rate[most].log()[:, None] - rate[others].log()).abs().numpy() / np.log(caliper)
        kept = _matchable(distance <= 1 + 1e-9)
        looked_at += max(1, n - int(kept.sum()))
    if not kept.any():
        raise ValueError(
            f"no sensitive latent has a control whose firing rate is within a factor of {caliper:g} of its own: raise "
            "caliper"
        )
    distance = distance[kept][:n]
    generator = np.random.default_rng(seed)
    controls = np.empty((draws, len(distance)), dtype=np.int64)
    for draw in controls:
        costs = np.where(distance <= 1 + 1e-9, distance + 0.5 * generator.random(distance.shape), 1e6)
        draw[:] = others.numpy()[linear_sum_assignment(costs)[1]]
    matched = torch.from_numpy(kept)
    return FeatureSets(
        sensitive=most[matched][:n],
        controls=torch.from_numpy(controls),
        unmatched=most[~matched],
        sensitivity=sensitivity,
        rate=rate,
    )


def _matchable(near: Bool[np.ndarray, "latents others"]) -> Bool[np.ndarray, " latents"]:
    """Return which rows can all be assigned distinct columns; each row in turn is kept if that remains possible."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    def together(rows: np.ndarray) -> bool:
        return bool((maximum_bipartite_matching(csr_matrix(near[rows]), perm_type="column") >= 0).all())

    kept = np.ones(len(near), dtype=bool)
    if together(kept):
        return kept
    kept[:] = False
    for row in range(len(near)):
        kept[row] = True
        kept[row] = together(kept)
    return kept
