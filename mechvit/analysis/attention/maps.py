"""Attention of single images in compact form: patterns of one byte per weight, head statistics, rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mechvit.analysis.finite import check_finite
from mechvit.analysis.statistics.results import OneLine
from mechvit.arguments import checked

from .rollout import Fusion, check_rollout, rollout_step

if TYPE_CHECKING:
    from mechvit.models import HookedViT

Rollouts = Sequence[tuple[Fusion, float]]
"""Fusions with their discard ratios."""


@dataclass(frozen=True, kw_only=True, repr=False)
class HeadNumbers(OneLine):
    """Statistics of one layer's heads; float64."""

    entropy: Float[Tensor, "batch head"]
    """Entropy -sum p log p of a row, nats, averaged over queries (including CLS)."""
    distance: Float[Tensor, "batch head"]
    """Mean attention distance, patches: sum p |q - k| / sum p over patch keys, averaged over patch queries."""
    prefix_mass: Float[Tensor, "batch head prefix"]
    """Mean weight that patch queries give to each prefix token (CLS, distillation, registers), 0 to 1."""


@dataclass(frozen=True, kw_only=True, repr=False)
class AttentionMaps(OneLine):
    """One image's attention in one model; on the CPU."""

    codes: UInt8[np.ndarray, "layers heads query key"]
    """Patterns, one byte per weight (see `encode`)."""
    scale: Float[np.ndarray, "layers heads"]
    """The largest weight of each head."""
    entropy: Float[np.ndarray, "layers heads"]
    distance: Float[np.ndarray, "layers heads"]
    prefix_mass: Float[np.ndarray, "layers heads prefix"]
    rollouts: Float[np.ndarray, "rollouts query key"]
    """Rollouts through all layers of the model, whichever layers were asked for."""


def encode(
    patterns: Float[np.ndarray, "*batch query key"],
) -> tuple[UInt8[np.ndarray, "*batch query key"], Float[np.ndarray, "*batch"]]:
    """Encode weights as bytes: code = round(255 sqrt(weight / scale)), where scale is a pattern's largest weight.

    The square root resolves small weights, of which an attention row mostly consists: 1% of the largest is kept to
    within 4%, against 20% with even steps.
    """
    scale = patterns.max((-2, -1))
    unit = patterns / np.maximum(scale, np.finfo(np.float32).tiny)[..., None, None]
    return np.rint(255 * np.sqrt(unit)).astype(np.uint8), np.asarray(scale, np.float32)


def decode(
    codes: UInt8[np.ndarray, "*batch query key"], scale: Float[np.ndarray, "*batch"] | np.floating
) -> Float[np.ndarray, "*batch query key"]:
    """Decode bytes to weights, to within 0.4% of the pattern's largest weight."""
    return np.square(codes.astype(np.float32) / 255) * np.asarray(scale)[..., None, None]


@checked
def head_numbers(pattern: Float[Tensor, "batch head query key"], grid: tuple[int, int], n_prefix: int) -> HeadNumbers:
    """Compute entropy, mean distance and prefix weights of each head.

    Args:
        pattern: post-softmax attention; tokens = n_prefix + rows x columns.
        grid: patch rows and columns.
        n_prefix: tokens before the first patch.

    Source: mean attention distance, Dosovitskiy et al., arXiv:2010.11929, figure 7 (here in patches); entropy, the
    paper's equation 1.
    """
    pattern = pattern.double()
    tiny = torch.finfo(pattern.dtype).tiny
    entropy = -pattern.clamp_min(tiny).log_().mul_(pattern).sum(-1).mean(-1)  # in place: new float64 tensors are slow
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1).to(pattern)
    patches = pattern[:, :, n_prefix:, n_prefix:]
    distance = (patches * torch.cdist(places, places)).sum(-1) / patches.sum(-1).clamp_min(tiny)
    return HeadNumbers(
        entropy=entropy, distance=distance.mean(-1), prefix_mass=pattern[:, :, n_prefix:, :n_prefix].mean(2)
    )


@checked
@torch.inference_mode()
def attention_maps(
    model: HookedViT,
    pixel_values: Float[Tensor, "batch channel height width"],
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    rollouts: Rollouts = (("mean", 0.0),),
) -> list[AttentionMaps]:
    """Run the model once and keep each image's attention as bytes; layers are reduced as they are computed.

    Args:
        model: any HookedViT.
        pixel_values: normalised, as the image processor returns them; a few images at a time.
        layers: blocks to keep, 0 to n_layers - 1; all by default.
        heads: heads to keep, 0 to n_heads - 1; all by default.
        rollouts: fusions and discard ratios of `attention_rollout`.

    Returns:
        one result per image, of layers x heads x tokens^2 bytes.

    Raises:
        ValueError: an unknown layer, head or rollout, or attention that is not finite.
    """
    cfg = model.cfg
    kept, chosen = checked_indices("layers", layers, cfg.n_layers), list(checked_indices("heads", heads, cfg.n_heads))
    for fusion, ratio in rollouts:
        check_rollout(fusion, ratio)
    rolled: list[Tensor] = []
    codes, scales, numbers = [], [], []

    def reduce(pattern: Tensor, hook: object) -> None:
        check_finite("attention weights", [pattern], model, numbers=[hook.layer()])  # type: ignore[attr-defined]
        steps = [rollout_step(pattern.float(), *settings) for settings in rollouts]
        rolled[:] = [step @ before for step, before in zip(steps, rolled, strict=True)] if rolled else steps
        if hook.layer() in kept:  # type: ignore[attr-defined]
            shown = pattern[:, chosen].float().cpu()  # not every device has float64
            code, scale = encode(shown.numpy())
            codes.append(code)
            scales.append(scale)
            numbers.append(head_numbers(shown, cfg.grid, cfg.n_prefix_tokens))

    hooks = [(f"blocks.{layer}.attn.hook_pattern", reduce) for layer in range(cfg.n_layers)]
    model.run_with_hooks(pixel_values.to(cfg.device, cfg.dtype), return_type=None, fwd_hooks=hooks)
    order = [sorted(kept).index(layer) for layer in kept]

    def stacked(parts: list[np.ndarray], image: int) -> np.ndarray:
        return np.stack([parts[place][image] for place in order])

    def number(name: str, image: int) -> np.ndarray:
        return stacked([getattr(part, name).numpy() for part in numbers], image)

    return [
        AttentionMaps(
            codes=stacked(codes, image),
            scale=stacked(scales, image),
            entropy=number("entropy", image),
            distance=number("distance", image),
            prefix_mass=number("prefix_mass", image),
            rollouts=np.stack([matrix[image].cpu().numpy() for matrix in rolled])
            if rolled
            else np.zeros((0, cfg.n_tokens, cfg.n_tokens), np.float32),
        )
        for image in range(len(pixel_values))
    ]


def checked_indices(name: str, wanted: Sequence[int] | None, n: int) -> tuple[int, ...]:
    """Return the wanted indices, checked; all for None.

    Raises:
        ValueError: no index, one outside 0 to n - 1, or a repeated one.
    """
    chosen = tuple(range(n)) if wanted is None else tuple(int(index) for index in wanted)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= index < n for index in chosen):
        raise ValueError(f"{name} must be one or more of 0 to {n - 1}, none twice; got {list(chosen)}")
    return chosen
