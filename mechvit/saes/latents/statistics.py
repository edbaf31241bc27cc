"""Sums over batches for the description of every latent; per latent a few images are kept, never a map."""

from __future__ import annotations

from collections import defaultdict

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.inputs import wide, wide_sum

from .results import LogitEffects, SAEFeatures, Sensitivity


class TopImages:
    """The images in which each latent is strongest, and the tokens: [top, d_sae], merged batch by batch.

    Among equals the earlier image is kept, so that the batch size has no effect.
    """

    def __init__(self, top: int, n_tokens: int, like: Float[Tensor, "*batch d_sae"]) -> None:
        self.n_tokens = n_tokens
        self.score = like.new_zeros(top, like.shape[-1])
        self.place = torch.full_like(self.score, -1, dtype=torch.int64)  # index of the image x n_tokens + token

    def add(self, codes: Float[Tensor, "batch token d_sae"], first_image: int) -> None:
        """Add a batch of images, the first of which has the index `first_image`."""
        score, token = codes.max(1)
        images = first_image + torch.arange(len(codes), device=codes.device)
        place = images[:, None] * self.n_tokens + token
        scores, places = torch.cat([self.score, score]), torch.cat([self.place, place])
        kept = scores.sort(dim=0, descending=True, stable=True).indices[: len(self.score)]
        self.score, self.place = scores.gather(0, kept), places.gather(0, kept)


class CorruptionTally:
    """Sums over the same tokens, clean and under one corruption."""

    def __init__(self) -> None:
        self.tokens = 0
        self.sums: list[Tensor | float] = [0.0] * 5  # clean, corrupted, |difference|; fired clean, and in both

    def add(self, clean: Float[Tensor, "batch token d_sae"], other: Float[Tensor, "batch token d_sae"]) -> None:
        """Add a batch, one image at a time, so that no third array of the codes' size is made."""
        self.tokens += clean.shape[0] * clean.shape[1]
        for a, b in zip(clean, other, strict=True):
            a, b = wide(a), wide(b)
            fired = a != 0
            counts = (part.sum(0, dtype=torch.int32) for part in (fired, fired & (b != 0)))
            parts = (a.sum(0), b.sum(0), (b - a).abs_().sum(0), *counts)
            self.sums = [total + part.double() for total, part in zip(self.sums, parts, strict=True)]

    def result(self) -> Sensitivity:
        """Return the means on the CPU; 0 / 0 is NaN."""
        clean, other, moved, fired, both = (torch.as_tensor(total).cpu() for total in self.sums)
        return Sensitivity(
            clean_mean=clean / self.tokens,
            mean_difference=(other - clean) / self.tokens,
            mean_absolute_difference=moved / self.tokens,
            ratio=torch.where(clean > 0, other / clean, torch.nan),
            kept=both / fired,
        )


class FeatureTally:
    """Sums over clean images for one SAE's latents, and over pairs of clean and corrupted codes."""

    def __init__(self, top: int, n_tokens: int, first_patch: int) -> None:
        self.top, self.n_tokens, self.first_patch = top, n_tokens, first_patch
        self.images: TopImages | None = None
        self.fired: Tensor | int = 0
        self.total: Tensor | float = 0.0
        self.mass: Tensor | None = None  # [label, d_sae]
        self.pairs: dict[str, CorruptionTally] = defaultdict(CorruptionTally)

    def add(self, codes: Float[Tensor, "batch token d_sae"], labels: Int[Tensor, " batch"], first_image: int) -> None:
        """Add a batch of clean images."""
        if self.images is None:
            self.images = TopImages(self.top, self.n_tokens, codes)
            self.mass = torch.zeros(0, codes.shape[-1], device=codes.device)
        self.images.add(codes, first_image)
        per_image = wide_sum(codes, 1)
        self.total = self.total + per_image.double().sum(0)
        self.fired = self.fired + (codes != 0).sum((0, 1), dtype=torch.int32).long()
        assert self.mass is not None
        if new := max(0, int(labels.max()) + 1 - len(self.mass)):
            self.mass = torch.cat([self.mass, self.mass.new_zeros(new, self.mass.shape[1])])
        known = labels.to(codes.device) >= 0
        self.mass.index_add_(0, labels.to(codes.device)[known], per_image[known].to(self.mass))

    def result(
        self, image_ids: Int[Tensor, " images"], labels: Int[Tensor, " images"], logits: LogitEffects | None
    ) -> SAEFeatures:
        """Describe every latent, given the ids and labels of all images; those without a label have a negative one."""
        assert self.images is not None
        assert self.mass is not None
        score, place = wide(self.images.score).T.cpu(), self.images.place.T.cpu()
        image, token, present = place // self.n_tokens, place % self.n_tokens, place >= 0
        top_label, top_purity = purity(torch.where(present, labels[image], -1))
        fired, total = torch.as_tensor(self.fired).cpu().double(), torch.as_tensor(self.total).cpu()
        return SAEFeatures(
            firing_rate=fired / (len(image_ids) * self.n_tokens),
            mean_activation=total / fired,  # 0 / 0 is NaN
            max_activation=score[:, 0].clone(),
            top_score=torch.where(present, score, torch.nan),
            top_image=torch.where(present, image_ids[image], -1),
            top_patch=torch.where(present, token - self.first_patch, 0),
            top_label=top_label,
            top_label_purity=top_purity,
            **label_statistics(self.mass.cpu(), torch.bincount(labels[labels >= 0], minlength=len(self.mass))),
            logits=logits,
            sensitivity={key: pair.result() for key, pair in self.pairs.items()},
        )


def purity(labels: Int[Tensor, "d_sae top"]) -> tuple[Int[Tensor, " d_sae"], Float[Tensor, " d_sae"]]:
    """Return the most frequent label of each row (the first among equals) and its share, ignoring entries below 0."""
    n = labels.shape[1]
    present = labels >= 0
    counts = torch.stack([(labels == labels[:, i : i + 1]).sum(1) for i in range(n)], dim=1) * present
    first = (counts * n - torch.arange(n)).argmax(1, keepdim=True)
    share = counts.double().gather(1, first)[:, 0] / present.sum(1)  # 0 / 0 is NaN
    return labels.gather(1, first)[:, 0], share


def label_statistics(
    mass: Float[Tensor, "label d_sae"], images: Int[Tensor, " label"]
) -> dict[str, Int[Tensor, " d_sae"] | Float[Tensor, " d_sae"]]:
    """Compute purity by activation and class selectivity from the activation and the number of images of each label.

    Without any label the classes are -1 and the numbers NaN.
    """
    if not len(images):
        unknown, none = torch.full((mass.shape[1],), torch.nan), torch.full((mass.shape[1],), -1)
        known = {"mass_label": none, "mass_label_purity": unknown.double()}
        return known | {"selective_label": none, "selectivity": unknown.double()}
    mass, dead = mass.double(), mass.sum(0) == 0
    seen = images > 0
    means = torch.where(seen[:, None], mass / images.clamp(min=1)[:, None], -1)
    (best, heaviest), (high, selective) = mass.max(0), means.max(0)
    rest = (means[seen].sum(0) - high) / (int(seen.sum()) - 1)  # 0 / 0 is NaN: a single label has no selectivity
    return {
        "mass_label": torch.where(dead, -1, heaviest),
        "mass_label_purity": best / mass.sum(0),
        "selective_label": torch.where(dead, -1, selective),
        "selectivity": (high - rest) / (high + rest),
    }
