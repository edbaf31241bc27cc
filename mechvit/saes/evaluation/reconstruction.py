"""Sums over batches for the quality of one SAE under one condition."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mechvit.analysis.behaviour.calibration import ECE_BINS, calibration_gaps
from mechvit.analysis.behaviour.performance import score
from mechvit.analysis.inputs import wide, wide_sum
from mechvit.data.batches import ImageBatch

from .results import Classification, FiringRates


class Reconstruction:
    """Float64 sums over the tokens of one SAE under one condition."""

    def __init__(self) -> None:
        from sae_lens.evals import ExplainedVarianceCalculator

        self.variance = ExplainedVarianceCalculator()
        self.images = 0
        self.relative = self.cosine = self.l1 = 0.0
        self.fired: Tensor | int = 0  # [d_sae], number of tokens on which each latent fired
        self.active: Tensor | int = 0  # [token], number of active latents at each position

    def add(
        self,
        x: Float[Tensor, "batch token d"],
        codes: Float[Tensor, "batch token d_sae"],
        x_hat: Float[Tensor, "batch token d"],
    ) -> None:
        """Add a batch of images."""
        active = codes != 0
        self.fired = self.fired + active.sum((0, 1), dtype=torch.int32).long()  # int32 sums are three times as fast
        self.active = self.active + active.sum(2, dtype=torch.int32).sum(0)
        self.l1 += float(wide_sum(codes, 2).double().sum())
        self.images += len(x)
        x, x_hat = x.flatten(0, 1).double(), x_hat.flatten(0, 1).double()
        self.variance.add_batch(x_hat, x)
        self.relative += float(((x - x_hat).square().sum(-1) / x.square().sum(-1)).sum())
        self.cosine += float(cosine_similarity(x, x_hat, dim=-1).sum())

    @property
    def firing(self) -> FiringRates:
        """Firing rate of each latent, on the CPU."""
        assert isinstance(self.fired, Tensor)
        assert isinstance(self.active, Tensor)
        return FiringRates(self.fired.cpu().double() / (self.images * len(self.active)))

    def metrics(self, cls: slice, patches: slice, dense_above: float) -> dict[str, Any]:
        """Return the fields of `SAEQuality` that need no head; `cls` and `patches` index the tokens that are read."""
        assert isinstance(self.active, Tensor)
        tokens, firing = self.images * len(self.active), self.firing.rate
        per_image = self.active.double() / self.images

        def l0(where: slice) -> float | None:
            return float(per_image[where].mean()) if len(per_image[where]) else None

        return {
            "explained_variance": self.variance.compute(),
            "normalised_mse": self.relative / tokens,
            "cosine": self.cosine / tokens,
            "l0": l0(slice(None)),
            "l0_cls": l0(cls),
            "l0_patches": l0(patches),
            "l1": self.l1 / tokens,
            "dead_fraction": float((firing == 0).double().mean()),
            "dense_fraction": float((firing > dense_above).double().mean()),
        }


class Classified:
    """Sums over images of correct answers, calibration gaps and cross-entropies (nats)."""

    def __init__(self) -> None:
        self.images, self.correct, self.among5, self.nats = 0, 0, 0, 0.0
        self.classes = 0
        self.gaps = torch.zeros(ECE_BINS, dtype=torch.float64)

    def add(self, logits: Float[Tensor, "batch class"], batch: ImageBatch, model: str = "the model") -> None:
        """Add a batch of images; `model` is its name in errors."""
        found = score(logits, batch.labels, batch.image_ids, model)
        right = found.rank == 0
        self.images += len(batch)
        self.classes = logits.shape[-1]
        self.correct += int(right.sum())
        self.among5 += int((found.rank < 5).sum())
        self.nats += float(found.loss.double().sum())
        self.gaps += calibration_gaps(right, found.confidence).sum(0)

    def means(self) -> Classification:
        """Return the metrics over all images added so far."""
        return Classification(
            accuracy=self.correct / self.images,
            top5=self.among5 / self.images if self.classes > 5 else None,
            ece=float(self.gaps.abs().sum()) / self.images,
            cross_entropy=self.nats / self.images,
        )


def recovered(floor: float, reconstructed: float, untouched: float) -> float:
    """Compute (floor - reconstructed) / (floor - untouched); NaN if the ablation changes nothing."""
    return (floor - reconstructed) / (floor - untouched) if floor != untouched else math.nan


def code_cosine(clean: Float[Tensor, "*token d_sae"], other: Float[Tensor, "*token d_sae"]) -> Float[Tensor, "*token"]:
    """Compute the cosine over latents, clamped to [-1, 1]; 1 if both codes are empty, 0 if only one is."""
    clean, other = wide(clean), wide(other)
    dot = torch.linalg.vecdot(clean, other)
    a, b = torch.linalg.vector_norm(clean, dim=-1), torch.linalg.vector_norm(other, dim=-1)
    empty = (a == 0) & (b == 0)
    cosine = dot / torch.where((a == 0) | (b == 0), 1, a * b)
    return torch.where(empty, 1, cosine).float().clamp(-1, 1)
