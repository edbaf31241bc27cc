"""Attention entropy, and how a corruption changes attention: entropy, cosine and squared difference of patterns.

Shapes: a pattern is [batch, head, query, key] and each row (one query's keys) sums to 1. Everything here is computed
inside hooks, layer by layer (`capture.py`), so that no more than one batch of one model is ever held.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.condition_images import shown_to
from mechvit.analysis.finite import check_finite
from mechvit.analysis.inputs import Images, image_batches, on_cpu, pixel_values
from mechvit.analysis.statistics.results import AveragedResult, Columns
from mechvit.analysis.statistics.tidy_tables import PerImage, tidy
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition

from .capture import CleanAttention, Shift, entropy_reading

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@dataclass(frozen=True, repr=False)
class AttentionEntropy(AveragedResult):
    """Attention entropy under one condition, averaged over heads and queries; on the CPU."""

    SUMMARISED: ClassVar[Columns] = (("layer",), ("entropy",))

    image_id: Int[Tensor, " images"]
    entropy: Float[Tensor, "images layers"]
    """Entropy, nats; 0 to log(keys)."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per image and layer; `labels` are constant columns put first."""
        return tidy(self.image_id, {"entropy": self.entropy}, labels)


@dataclass(frozen=True, repr=False)
class AttentionShift(PerImage):
    """Corrupted against clean patterns of the same images, averaged over heads and queries; on the CPU."""

    SUMMARISED: ClassVar[Columns] = (("layer",), ("entropy_difference", "cosine", "squared_difference"))

    image_id: Int[Tensor, " images"]
    entropy_clean: Float[Tensor, "images layers"]
    """H(clean), nats."""
    entropy: Float[Tensor, "images layers"]
    """H(corrupted), nats."""
    cosine: Float[Tensor, "images layers"]
    """Cosine between the two rows of each head and query, 0 to 1."""
    squared_difference: Float[Tensor, "images layers"]
    """Sum over keys of (corrupted - clean)^2 in each row, 0 to 2."""

    @property
    def entropy_difference(self) -> Float[Tensor, "images layers"]:
        """H(corrupted) - H(clean), nats: positive means that the corruption spread attention out."""
        return self.entropy - self.entropy_clean

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per image and layer; `labels` are constant columns put first."""
        names = ("entropy_clean", "entropy", "entropy_difference", "cosine", "squared_difference")
        return tidy(self.image_id, {name: getattr(self, name) for name in names}, labels)

    def head(self, count: int) -> AttentionShift:
        """Return the first `count` images."""
        return AttentionShift(**{f.name: getattr(self, f.name)[:count] for f in fields(self)})

    @classmethod
    def of(
        cls, image_ids: Tensor, clean: CleanAttention, found: list[Shift], name: str | None = None
    ) -> AttentionShift:
        """Assemble the statistics of one corrupted pass.

        Raises:
            ValueError: attention that is not finite; names the model.
        """
        for numbers in (clean.entropy, [torch.stack(shift, dim=1) for shift in found]):
            check_finite("attention weights", numbers, name or clean.model, image_ids)
        entropy, cosine, squared = (torch.stack(column, dim=1) for column in zip(*found, strict=True))
        parts = (image_ids, torch.stack(clean.entropy, dim=1), entropy, cosine, squared)
        return cls(*(on_cpu(part) for part in parts))


@checked
@torch.inference_mode()
def attention_entropy(
    model: HookedViT,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> AttentionEntropy:
    """Compute the entropy of every layer's attention, nats, averaged over heads and queries (including CLS).

    Args:
        model: any HookedViT.
        batch_size: images per forward pass; None takes 32 on a CPU, else 128, limited to 256 MiB of kept activations.
        images, corruption, seed, progress: as in `evaluate`; labels are not read.

    Raises:
        ValueError: no images, another input size than the model's, or attention that is not finite.
    """
    ids, entropies = [], []
    for batch in image_batches(model, images, batch_size, conditions=[corruption], patterns=True, progress=progress):
        with entropy_reading(model) as (hooks, found):
            model.run_with_hooks(pixel_values(model, shown_to(model, batch, corruption, seed=seed)), fwd_hooks=hooks)
        check_finite("attention weights", found, model, batch.image_ids)
        ids.append(on_cpu(batch.image_ids))
        entropies.append(on_cpu(torch.stack(found, dim=1)))
    return AttentionEntropy(torch.cat(ids), torch.cat(entropies))


@checked
@torch.inference_mode()
def attention_shift(
    model: HookedViT,
    images: Images,
    corruption: Condition | str,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> AttentionShift:
    """Compare each image's corrupted attention with its clean one, layer by layer.

    Args:
        model: any HookedViT.
        batch_size: images per forward pass; None takes 32 on a CPU, else 128, limited to 256 MiB of clean attention
            (patterns, or queries and keys) that is kept during the corrupted pass.
        images, corruption, seed, progress: as in `evaluate`; labels are not read.

    Raises:
        ValueError: no images, another input size than the model's, or attention that is not finite.

    Source: the paper's section 3.3. It does not fix the entropy difference's sign; ours is H(corrupted) - H(clean).
    """
    parts = []
    for batch in image_batches(model, images, batch_size, conditions=[corruption], patterns=True, progress=progress):
        clean = CleanAttention(model)
        model.run_with_hooks(pixel_values(model, batch), fwd_hooks=clean.hooks())
        hooks, found = clean.comparison()
        model.run_with_hooks(pixel_values(model, shown_to(model, batch, corruption, seed=seed)), fwd_hooks=hooks)
        parts.append(AttentionShift.of(batch.image_ids, clean, found))
    return AttentionShift.concatenate(parts)
