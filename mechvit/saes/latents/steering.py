"""Steering with a few latents of an SAE: the part of clean minus corrupted activations that they write."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.inputs import Images, corrupted_batches
from mechvit.analysis.interventions.steering_directions import Direction, Tokens, check_point
from mechvit.arguments import checked
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition
from mechvit.saes.hook_site import check_checkpoint, sae_site
from mechvit.saes.splicing import read_site

from .directions import latent_directions

if TYPE_CHECKING:
    from sae_lens import SAE

    from mechvit.models import HookedViT

MOST_LATENTS = 32
"""Default number of latents in a direction."""
IMAGES_PER_BATCH = 32


@checked
@torch.inference_mode()
def sae_steering_direction(
    model: HookedViT,
    sae: SAE,
    images: Images,
    corruption: Condition | str,
    *,
    n_latents: int = MOST_LATENTS,
    batch_size: int = IMAGES_PER_BATCH,
    seed: int = 0,
    allow_other_model: bool = False,
    progress: str | None = None,
) -> Direction:
    """Compute a steering direction: the clean minus corrupted difference written by the latents that write most of it.

    With m_j the mean activation of latent j over images and tokens and W_j its direction (`latent_directions`), the
    result is the sum of (m_j(clean) - m_j(corrupted)) W_j over the n latents for which the length of this vector, which
    does not depend on the scale of a latent, is largest. With all latents it is the mean difference of the SAE's
    reconstructions.

    Args:
        model: the model to steer.
        sae: an SAE of the residual stream in one of the model's blocks.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`, disjoint from the images that are steered
            later.
        corruption: the corruption that the direction leads away from.
        n_latents: number of latents in the direction.
        batch_size: images per forward pass.
        seed, allow_other_model, progress: as in `evaluate_saes`.

    Returns:
        a direction with one row, for all tokens that the SAE reads, and the source `sae`.

    Raises:
        ValueError: the SAE does not fit the model, was trained on another or scales its input, the hook point cannot be
            steered, n_latents lies outside 1 to d_sae, there are no images, or activations are not finite.

    Source: a sparse form of the mean difference of arXiv:2312.06681, section 3.
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
    conditions = (CLEAN, as_condition(corruption))
    for batch in corrupted_batches({"steered": model}, images, conditions, batch_size, seed=seed, progress=progress):
        for (condition, shown), sign in zip(batch.conditions, (1, -1), strict=True):
            codes = sae.encode(read_site(model, site, shown, condition).x.to(sae.W_dec))
            moved += sign * codes.flatten(0, 1).double().sum(0)
        count += codes[..., 0].numel()
    return Direction(site.hook, cast(Tokens, site.tokens), _written(moved / count, written, n_latents), "sae")


def _written(
    moved: Float[Tensor, " d_sae"], directions: Float[Tensor, "d_sae d_model"], n_latents: int
) -> Float[Tensor, "1 d_model"]:
    """Return the sum of the contributions of the latents that write most."""
    most = (moved.abs() * directions.double().norm(dim=1)).topk(n_latents).indices
    return (moved[most] @ directions[most].double())[None].to("cpu", torch.float32)
