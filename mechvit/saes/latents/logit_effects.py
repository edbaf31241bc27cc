"""From an SAE's decoder straight to the classes."""

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

_ROWS = 4096  # latents at a time: 16 MiB for a thousand classes


def class_directions(model: HookedViT) -> Float[Tensor, "class d_model"]:
    """For each class the direction whose product with a residual is its logit, before the LayerNorm's division.

    The residual is one that stands in every token that the head reads: with it the sum over tokens of
    `ViTActivationCache.logit_directions` needs no image, since pooling patterns sum to 1. A zero-shot head's division
    by the image's norm is left out.

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
    """The classes that what each latent writes (`latent_directions`) raises and lowers most; see `LogitEffects`."""
    directions = class_directions(model).float()
    if model.ln_final is not None:
        directions = directions - directions.mean(1, keepdim=True)  # the LayerNorm takes the mean of what it reads away
    directions = directions - directions.mean(0)  # a softmax does not see what all classes share
    top = min(top, len(directions))
    parts: list[tuple[Tensor, ...]] = []
    for rows in written.to(directions).split(_ROWS):
        effect = rows @ directions.T
        high, low = effect.topk(top), effect.topk(top, largest=False)
        parts.append((high.indices, high.values, low.indices, low.values))
    raised, raised_by, lowered, lowered_by = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return LogitEffects(raised=raised, raised_by=raised_by, lowered=lowered, lowered_by=lowered_by)
