"""Direct effects of an SAE's latents on the logits of the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.inputs import wide
from mechvit.models.layers.head import AttentionPooler

from .results import LogitEffects

if TYPE_CHECKING:
    from mechvit.models import HookedViT

_ROWS = 4096  # latents per block: 16 MiB for a thousand classes


def class_directions(model: HookedViT) -> Float[Tensor, "class d_model"]:
    """Return for each class the direction whose product with a residual is its logit, before LayerNorm's division.

    The residual is taken to be the same in every token that the head reads: since pooling weights sum to 1, no image is
    then needed, in contrast to `ViTActivationCache.logit_directions`. A zero-shot head's division by the image's norm
    is left out.

    Raises:
        ValueError: the model has no head.
    """
    to_class = wide(model.W_U.T)
    if isinstance(model.pooler, AttentionPooler):
        attn = model.pooler.attn
        found = torch.einsum("hmd,hdn,cn->cm", wide(attn.W_V), wide(attn.W_O), to_class)
    else:
        found = to_class.unflatten(-1, (-1, model.cfg.d_model)).sum(1)
    return found if model.ln_final is None else found * model.ln_final.w


@torch.no_grad()
def logit_effects(model: HookedViT, written: Float[Tensor, "d_sae d_model"], top: int = 5) -> LogitEffects:
    """Return the classes that each latent's direction (`latent_directions`) raises and lowers most."""
    directions = class_directions(model).float()
    if model.ln_final is not None:
        directions = directions - directions.mean(1, keepdim=True)  # the LayerNorm subtracts the mean of its input
    directions = directions - directions.mean(0)  # a softmax ignores what all classes share
    top = min(top, len(directions))
    parts: list[tuple[Tensor, ...]] = []
    for rows in written.to(directions).split(_ROWS):
        effect = rows @ directions.T
        high, low = effect.topk(top), effect.topk(top, largest=False)
        parts.append((high.indices, high.values, low.indices, low.values))
    raised, raised_by, lowered, lowered_by = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return LogitEffects(raised=raised, raised_by=raised_by, lowered=lowered, lowered_by=lowered_by)
