"""Attention rollout: each input token's share in each output token, through all layers and residual branches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.finite import check_finite
from mechvit.arguments import checked

if TYPE_CHECKING:
    from mechvit.models import HookedViT

Fusion = Literal["mean", "min", "max"]
FUSIONS: tuple[Fusion, ...] = ("mean", "min", "max")


def check_rollout(fusion: str, discard_ratio: float) -> None:
    """Raise a ValueError for an unknown fusion or a discard ratio outside [0, 1)."""
    if fusion not in FUSIONS:
        raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}; got {fusion!r}")
    if not 0 <= discard_ratio < 1:
        raise ValueError(
            f"discard_ratio must be at least 0 and below 1; got {discard_ratio}: 0.9 drops the lowest nine tenths"
        )


def rollout_step(
    pattern: Float[Tensor, "batch head query key"], fusion: Fusion = "mean", discard_ratio: float = 0.0
) -> Float[Tensor, "batch query key"]:
    """Compute one layer's factor of the rollout: 0.5 (fused heads) + 0.5 identity, with rows normalised to sum 1."""
    fused = pattern.mean(1) if fusion == "mean" else getattr(pattern, f"a{fusion}")(1)
    flat = fused.flatten(1)
    dropped = int(flat.shape[1] * discard_ratio)
    if dropped:
        flat = flat.scatter(1, flat.topk(dropped, largest=False).indices, 0.0)
    step = 0.5 * flat.view_as(fused) + 0.5 * torch.eye(fused.shape[-1], dtype=fused.dtype, device=fused.device)
    return step / step.sum(-1, keepdim=True)


@checked
@torch.inference_mode()
def attention_rollout(
    model: HookedViT,
    pixel_values: Float[Tensor, "batch channel height width"],
    *,
    fusion: Fusion = "mean",
    discard_ratio: float = 0.0,
) -> Float[Tensor, "batch query key"]:
    """Multiply all layers' attention, each averaged with the identity for the residual branch: A_n ... A_2 A_1.

        A_l = normalise_rows(0.5 fuse_heads(W_l) + 0.5 I)

    Args:
        model: any HookedViT.
        pixel_values: normalised, as the image processor returns them.
        fusion: reduction of a layer's heads to one matrix, entry by entry.
        discard_ratio: the fraction of a layer's fused entries, the lowest of the matrix, that is set to zero first.

    Returns:
        row q: the shares of the input tokens in token q of the last layer, which sum to one. Row 0 is that of CLS, if
        the model has it.

    Raises:
        ValueError: an unknown fusion, a ratio outside [0, 1), or attention that is not finite.

    Source: Abnar and Zuidema, arXiv:2005.00928, section 3 (mean, nothing discarded). Other fusions and the discarding
    follow common practice for vision transformers, but exempt no entry from being discarded.
    """
    check_rollout(fusion, discard_ratio)
    rolled: list[Tensor] = []

    def multiply(pattern: Tensor, hook: object) -> None:
        check_finite("attention weights", [pattern], model, numbers=[hook.layer()])  # type: ignore[attr-defined]
        step = rollout_step(pattern.float(), fusion, discard_ratio)
        rolled[:] = [step @ rolled[0] if rolled else step]

    hooks = [(f"blocks.{layer}.attn.hook_pattern", multiply) for layer in range(model.cfg.n_layers)]
    model.run_with_hooks(pixel_values.to(model.cfg.device, model.cfg.dtype), return_type=None, fwd_hooks=hooks)
    return rolled[0]
