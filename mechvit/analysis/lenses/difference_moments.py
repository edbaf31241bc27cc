"""Sums over images of two models' residual streams and of their differences, layer by layer, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.common_batches import common_batches, common_residuals
from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, on_cpu, pixel_values
from mechvit.analysis.statistics.results import OneLine
from mechvit.data.corruption_spec import CLEAN

if TYPE_CHECKING:
    from mechvit.models import HookedViT


@dataclass(frozen=True, repr=False)
class DifferenceMoments(OneLine):
    """Moments of one group of tokens; float64, on the CPU."""

    base: Float[Tensor, "layers d_model"]
    """Mean residual stream of the base model."""
    delta: Float[Tensor, "layers d_model"]
    """Mean of tuned minus base."""
    left_out: Float[Tensor, "groups layers d_model"]
    """The same mean without each group of images."""
    eigenvalues: Float[Tensor, "layers d_model"]
    """Those of the uncentred second moment of tuned minus base, token by token; descending."""
    shuffled: Float[Tensor, "layers d_model"]
    """The same where the two tokens of a pair are drawn independently, of any image and place."""
    random: Float[Tensor, "directions layers d_model"]
    """Random directions with the covariance of the base model's residual stream, as long as `delta`."""


class _Sums:
    """Running sums of one group of tokens."""

    def __init__(self, groups: int, directions: int, seed: int) -> None:
        self.groups, self.directions = groups, directions
        self.generator = torch.Generator().manual_seed(seed)
        self.sums: dict[tuple[str, int], Tensor] = {}
        self.tokens, self.weight = 0, torch.zeros(directions, dtype=torch.float64)

    def draw(self, images: int, tokens: int) -> None:
        """Draw the random weights of a batch's tokens, image by image, so that no batch size changes them."""
        drawn = [torch.randn(self.directions, tokens, generator=self.generator) for _ in range(images)]
        self.weights = torch.cat(drawn, dim=1).double()
        self.weight += self.weights.sum(1)
        self.tokens += images * tokens

    def add(self, layer: int, base: Tensor, tuned: Tensor, group: Int[Tensor, " images"]) -> None:
        """Add one layer of a batch, [image, token, d_model] of both models."""
        base, tuned = base.double(), tuned.double()
        parts = {"base": base, "tuned": tuned, "difference": tuned - base}
        group = group.to(base.device)
        for name, values in parts.items():
            by_group = values.new_zeros(self.groups, values.shape[-1]).index_add_(0, group, values.sum(1))
            flat = values.flatten(0, 1)
            self._add((name, layer), by_group)
            self._add((f"{name} squared", layer), flat.T @ flat)
        self._add(("random", layer), self.weights.to(base.device) @ base.flatten(0, 1))

    def _add(self, key: tuple[str, int], part: Tensor) -> None:
        part = on_cpu(part)
        self.sums[key] = self.sums[key].add_(part) if key in self.sums else part

    def moments(self, layers: Sequence[int], images: Int[Tensor, " groups"]) -> DifferenceMoments:
        """Return the moments of some layers; `images` counts those of each group."""
        found = [self._layer(layer, images) for layer in layers]
        return DifferenceMoments(*(torch.stack(parts, -2) for parts in zip(*found, strict=True)))

    def _layer(self, layer: int, images: Int[Tensor, " groups"]) -> tuple[Tensor, ...]:
        n, per_image = self.tokens, self.tokens // int(images.sum())
        total = {name: self.sums[name, layer].sum(0) for name in ("base", "tuned", "difference")}
        base, tuned, delta = (total[name] / n for name in total)
        left_out = (total["difference"] - self.sums["difference", layer]) / (n - per_image * images)[:, None]
        squared = {name: self.sums[f"{name} squared", layer] / n for name in total}
        cross = torch.outer(tuned, base)
        apart = squared["tuned"] + squared["base"] - cross - cross.T
        random = self.sums["random", layer] - self.weight[:, None] * base
        random = torch.nn.functional.normalize(random, dim=1) * delta.norm()
        return base, delta, left_out, _eigenvalues(squared["difference"]), _eigenvalues(apart), random


def _eigenvalues(moment: Float[Tensor, "d_model d_model"]) -> Float[Tensor, " d_model"]:
    return torch.linalg.eigvalsh(moment).flip(0).clamp_min(0)


def difference_moments(
    models: Mapping[str, HookedViT],
    images: Images,
    places: Mapping[str, slice],
    layers: Sequence[int],
    *,
    groups: int,
    directions: int,
    batch_size: int | None,
    seed: int,
    progress: str | None,
) -> dict[str, DifferenceMoments]:
    """Stream images through the models "base" and "tuned" and compute the moments of each group of tokens.

    Args:
        models: two models of one shape.
        images: those to stream.
        places: name of a group of tokens -> their places.
        layers: those to measure.
        groups: number of random groups of images, at most as many as there are images.
        directions: number of random directions.
    """
    group_of = torch.from_numpy(np.random.default_rng(seed).permutation(np.arange(len(images)) % groups))
    sums = {name: _Sums(groups, directions, seed) for name in places}
    start = 0
    for _, shown in common_batches(models, images, (CLEAN,), batch_size, progress=progress):
        ids = shown["base"].image_ids
        group = group_of[start : start + len(ids)]
        start += len(ids)
        for tokens, place in places.items():
            sums[tokens].draw(len(ids), len(range(models["base"].cfg.n_tokens)[place]))
        pixels = {name: pixel_values(models[name], batch) for name, batch in shown.items()}
        for layer, resids in enumerate(common_residuals(models, pixels)):
            if layer not in layers:
                continue
            for name, resid in resids.items():
                check_finite("the residual stream", [resid], models[name], ids, numbers=[layer])
            for tokens, place in places.items():
                base, tuned = (resids[name][:, place] for name in ("base", "tuned"))
                sums[tokens].add(layer, base, tuned.to(base.device), group)
    counts = torch.bincount(group_of, minlength=groups)
    return {tokens: own.moments(layers, counts) for tokens, own in sums.items()}


def mean_residuals(
    model: HookedViT,
    images: Images,
    places: Mapping[str, slice],
    layers: Sequence[int],
    *,
    batch_size: int | None,
    progress: str | None,
) -> dict[str, Float[Tensor, "layers d_model"]]:
    """Compute the mean residual stream of each group of tokens over images; float64, on the CPU."""
    total = {tokens: torch.zeros((), dtype=torch.float64) for tokens in places}
    for _, shown in common_batches({"base": model}, images, (CLEAN,), batch_size, progress=progress):
        pixels = {"base": pixel_values(model, shown["base"])}
        kept = [own["base"] for layer, own in enumerate(common_residuals({"base": model}, pixels)) if layer in layers]
        check_finite("the residual stream", kept, model, shown["base"].image_ids, numbers=list(layers))
        for tokens, place in places.items():
            means = torch.stack([on_cpu(resid[:, place].double().mean(1).sum(0)) for resid in kept])
            total[tokens] = total[tokens] + means
    return {tokens: values / len(images) for tokens, values in total.items()}
