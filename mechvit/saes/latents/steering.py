"""Steering with few latents of an SAE: the part of clean minus corrupted that they write."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.inputs import Images, corrupted_batches
from mechvit.analysis.interventions.steering_directions import Direction, Tokens, check_point
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Corruption, as_corruption
from mechvit.saes.hook_site import check_checkpoint, sae_site
from mechvit.saes.splicing import look_at

from .directions import latent_directions

if TYPE_CHECKING:
    from sae_lens import SAE

    from mechvit.models import HookedViT

LATENTS = 32
"""Latents that a direction is made of unless told otherwise."""
IMAGES_PER_BATCH = 32


@checked
@torch.inference_mode()
def sae_steering_direction(
    model: HookedViT,
    sae: SAE,
    images: Images,
    corruption: Corruption | str,
    *,
    n_latents: int = LATENTS,
    batch_size: int = IMAGES_PER_BATCH,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> Direction:
    """The sum of mean clean minus mean corrupted activation times what a unit writes, over the latents that write most.

    With m_j the mean activation of latent j over images and tokens and W_j its direction (`latent_directions`), the n
    latents with the largest |m_j(clean) - m_j(corrupted)| |W_j| are taken, a rule that no rescaling of a latent
    changes. With all latents this is the mean difference of the SAE's reconstructions.

    Args:
        model: the one that is to be steered.
        sae: one whose hook point stands in the residual stream of one of the model's blocks.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; others than those that are steered later.
        corruption: what the direction leads away from.
        n_latents: how many.
        batch_size: images a forward pass.
        seed: of all that is random in the corruption.
        allow_other_model: take an SAE that says it was trained on another checkpoint, too.
        progress: the label of a progress bar; None shows none.

    Returns:
        one row for all tokens that the SAE reads, with the source `sae`.

    Raises:
        ValueError: an SAE that does not fit the model, was trained on another or scales what it reads, a hook point
            that cannot be steered, n_latents outside 1..d_sae, no images, or activations that are not finite.

    Source: the sparse form of the mean difference of arXiv:2312.06681, section 3.
    """
    site = sae_site(model, sae)
    check_point(model, site.hook)
    if not allow_other_model:
        check_checkpoint(model, {"sae": sae})
    if not 1 <= n_latents <= sae.cfg.d_sae:
        raise ValueError(f"n_latents must be 1 to {sae.cfg.d_sae}, the SAE's latents; got {n_latents}")
    written = latent_directions(sae)
    moved = torch.zeros(sae.cfg.d_sae, dtype=torch.float64, device=sae.W_dec.device)
    count = 0
    conditions = (CLEAN, as_corruption(corruption))
    for batch in corrupted_batches({"steered": model}, images, conditions, batch_size, seed=seed, progress=progress):
        for (condition, shown), sign in zip(batch.conditions, (1, -1), strict=True):
            codes = sae.encode(look_at(model, site, shown, condition).x.to(sae.W_dec))
            moved += sign * codes.flatten(0, 1).double().sum(0)
        count += codes[..., 0].numel()
    return Direction(site.hook, cast(Tokens, site.tokens), _written(moved / count, written, n_latents), "sae")


def _written(
    moved: Float[Tensor, " d_sae"], directions: Float[Tensor, "d_sae d_model"], n_latents: int
) -> Float[Tensor, "1 d_model"]:
    """What the latents that write most write."""
    most = (moved.abs() * directions.double().norm(dim=1)).topk(n_latents).indices
    return (moved[most] @ directions[most].double())[None].to("cpu", torch.float32)
