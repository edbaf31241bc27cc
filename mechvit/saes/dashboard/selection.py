"""Selection of the latents that a browser shows in detail, and matching of latents between SAEs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, combinations, zip_longest
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from mechvit.saes.hook_site import Site
from mechvit.saes.latents.directions import unit_directions
from mechvit.saes.latents.matching import EXACT_UP_TO, match_features
from mechvit.saes.latents.results import SAEFeatures

from .results import Partners, sensitivity_index

if TYPE_CHECKING:
    from sae_lens import SAE

MATCHED = 0.5
"""Lowest cosine at which a matching latent is selected."""
CHOICE = (
    "in turn from those that write most into the shown images, those that fire most often and those that a corruption "
    "changes most (among latents with a full row of top images); in every SAE after the first, up to half of them are "
    "the matches of the first one's, with a cosine of at least 0.5"
)


def choose(
    asked: Sequence[int],
    features: SAEFeatures,
    written: Float[Tensor, " d_sae"],
    partners: Sequence[int],
    n_features: int,
) -> Int[Tensor, " chosen"]:
    """Return the `asked` latents, then others by `CHOICE` until there are `n_features`; only `asked` ones may be dead.

    Args:
        asked: requested latents, which come first.
        features: statistics of all latents of the SAE.
        written: activation x length of the direction of each latent, summed over the displayed images.
        partners: latents that match another SAE's chosen ones, in order of priority; they take up to half of the
            places.
        n_features: number of latents; exceeded if more are asked for.
    """
    rankings = [_ranked(written), _ranked(features.firing_rate)]
    if features.sensitivity:
        full = features.top_image[:, -1] >= 0
        rankings.append(_ranked(torch.where(full, sensitivity_index(features).amax(0).nan_to_num(0), 0)))
    alive = features.firing_rate > 0
    in_turn = (j for j in chain.from_iterable(zip_longest(*rankings)) if j is not None)
    found = dict.fromkeys(asked)
    for some, most in ((partners, n_features // 2), (in_turn, n_features)):
        for latent in some:
            if len(found) >= most:
                break
            if alive[latent]:
                found[latent] = None
    return torch.tensor(list(found), dtype=torch.int64)


def _ranked(score: Tensor) -> list[int]:
    return score.argsort(descending=True, stable=True)[: int((score > 0).sum())].tolist()


def alike(saes: Mapping[str, SAE], sites: Mapping[str, Site]) -> list[tuple[str, str]]:
    """Return every two SAEs that read the same tokens and hook point, of one model or of two, each pair once."""
    return [(a, b) for a, b in combinations(saes, 2) if sites[a] == sites[b] and saes[a].cfg.d_in == saes[b].cfg.d_in]


def match_exactly(saes: Mapping[str, SAE], pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Partners]:
    """Match, in both directions, those pairs small enough for a fast one-to-one match (`EXACT_UP_TO`)."""
    found = {}
    for a, b in pairs:
        if min(saes[a].cfg.d_sae, saes[b].cfg.d_sae) <= EXACT_UP_TO:
            match = match_features(saes[a], saes[b])
            found[a, b] = Partners(match.match, match.cosine)
            found[b, a] = _turned(found[a, b], saes[b].cfg.d_sae)
    return found


def match_mutually(a: SAE, b: SAE, chosen: Int[Tensor, " chosen"]) -> Partners:
    """Match each chosen latent of a with its nearest latent of b, if it is in turn that latent's nearest.

    These pairs are part of every greedy match (see `match_features`), and are found without matching all the others.
    """
    unit_a, unit_b = unit_directions(a), unit_directions(b)
    cosine, there = (unit_a[chosen.to(unit_a.device)] @ unit_b.T.to(unit_a.device)).max(1)
    back = (unit_b[there.to(unit_b.device)].to(unit_a.device) @ unit_a.T).argmax(1).cpu()
    mutual = back == chosen
    found = Partners(torch.full((a.cfg.d_sae,), -1), torch.full((a.cfg.d_sae,), torch.nan))
    found.match[chosen[mutual]], found.cosine[chosen[mutual]] = there.cpu()[mutual], cosine.cpu()[mutual]
    return found


def _turned(partners: Partners, d_sae: int) -> Partners:
    there = (partners.match >= 0).nonzero()[:, 0]
    to = partners.match[there]
    match, cosine = torch.full((d_sae,), -1), torch.full((d_sae,), torch.nan)
    match[to], cosine[to] = there, partners.cosine[there]
    return Partners(match, cosine)


def partners_of(partners: Partners | None, chosen: Int[Tensor, " chosen"]) -> list[int]:
    """Return the latents that match the chosen ones with a cosine of at least `MATCHED`, in the latter's order."""
    if partners is None:
        return []
    return partners.match[chosen[partners.cosine[chosen] >= MATCHED]].tolist()


def nearest_directions(
    directions: Float[Tensor, "d_sae d"], chosen: Iterable[int] | Int[Tensor, " chosen"], top: int
) -> tuple[Int[Tensor, "chosen near"], Float[Tensor, "chosen near"]]:
    """Return the latents whose directions have the highest cosines with each chosen one's, and these cosines."""
    unit = normalize(directions.float(), dim=1)
    own = torch.as_tensor(chosen).to(unit.device)
    cosine = unit[own] @ unit.T
    cosine[torch.arange(len(own)), own] = -torch.inf
    near = cosine.topk(min(top, len(unit) - 1))
    return near.indices.cpu(), near.values.cpu()
