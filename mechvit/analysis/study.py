"""Performance, logit lens and attention of several models on several corruptions, in one streaming pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from mechvit.analysis.attention.capture import CleanAttention
from mechvit.analysis.attention.entropy_and_shift import AttentionShift
from mechvit.analysis.behaviour.performance import Performance, present_classes, require_classifier, score
from mechvit.analysis.lenses.logit_lens import LogitLens, read_lens, residual_hooks
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES
from mechvit.analysis.statistics.results import Result
from mechvit.arguments import checked
from mechvit.data.batches import ImageBatch
from mechvit.data.conditions import as_condition
from mechvit.data.corruption_spec import CLEAN, Condition

from .finite import first_not_finite
from .inputs import Images, corrupted_batches, pixel_values
from .summaries.tables import performance_summary

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@dataclass(frozen=True, repr=False)
class StudyTables(Result):
    """Tidy per-image tables; `model` is the name given to `study`, `corruption` a `Condition.key`."""

    performance: pd.DataFrame
    """model, corruption, image_id, label, prediction, rank, confidence, probability, loss, classes,
    rank_present (see `Performance`)."""
    lens: pd.DataFrame
    """model, corruption, image_id, layer 0..n_layers, probability, rank (see `LogitLens`)."""
    attention: pd.DataFrame
    """model, corruption, image_id, layer 0..n_layers-1, entropy_clean, entropy, entropy_difference, cosine,
    squared_difference (see `AttentionShift`); corrupted conditions only."""

    def to_frame(self) -> pd.DataFrame:
        """Return `performance`."""
        return self.performance

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Return `performance_summary` of the performance."""
        return performance_summary(self.performance, resamples=resamples, level=level, seed=seed)


@dataclass(frozen=True)
class _Results:
    """Results of one model under one corruption, batch by batch."""

    performance: list[Performance] = field(default_factory=list)
    lens: list[LogitLens] = field(default_factory=list)
    attention: list[AttentionShift] = field(default_factory=list)


@checked
@torch.inference_mode()
def study(
    models: Mapping[str, HookedViT],
    images: Images,
    corruptions: Collection[Condition | str],
    *,
    attention_corruptions: Collection[Condition | str] | None = None,
    attention_limit: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> StudyTables:
    """Run every model once on every image, clean and under each corruption, and tabulate performance, lens and
    attention.

    Each model sees the images as its own processor resizes them; models that resize alike share a batch, which is
    corrupted once. Each model's clean pass is shared by all corruptions. Only one batch's activations of one model are
    held at a time; only numbers per image and layer are kept.

    Args:
        models: name -> model. Models too large to hold together can be studied in one call each, with the same numbers.
        corruptions: those to apply; clean images are always studied, too.
        attention_corruptions: those whose attention is compared with the clean one; None takes all, () none (attention
            then stays on SDPA, which is faster).
        attention_limit: the number of images, from the first, whose attention is measured; None takes all.
        batch_size: images per forward pass; None takes 32 on a CPU, else 128, limited to 256 MiB of clean patterns.
        images, seed, progress: as in `evaluate`.

    Raises:
        ValueError: no models, no images, attention asked for a corruption that is not applied, another input size,
            labels that are not classes, logits that are not finite.

    Source: the paper's sections 4.1 to 4.3.
    """
    if not models:
        raise ValueError("there is no model to study; give a mapping of at least one name to a HookedViT")
    for model in models.values():
        require_classifier(model, images)
    applied = [CLEAN, *(c for c in dict.fromkeys(map(as_condition, corruptions)) if c != CLEAN)]
    watched = set(applied if attention_corruptions is None else map(as_condition, attention_corruptions)) - {CLEAN}
    if unknown := watched - set(applied):
        names = ", ".join(sorted(c.key for c in unknown))
        raise ValueError(f"attention is compared only under corruptions of this study; add {names} to corruptions")
    found = {(name, c): _Results() for name in models for c in applied}
    present = present_classes(images)
    for batch in corrupted_batches(
        models, images, applied, batch_size, patterns=bool(watched), seed=seed, progress=progress
    ):
        shown = dict(batch.conditions)
        count = len(shown[CLEAN])
        left = count if attention_limit is None else max(0, min(count, attention_limit - batch.start))
        for name in batch.models:
            own = {c: found[name, c] for c in applied}
            _study_batch(name, models[name], shown, watched if left else set(), left, own, present)
    return _tables(found)


def _study_batch(
    name: str,
    model: HookedViT,
    batches: Mapping[Condition, ImageBatch],
    watched: Collection[Condition],
    attention_count: int,
    found: Mapping[Condition, _Results],
    present: Int[Tensor, " present"],
) -> None:
    """Run one model on one batch: first the clean pass (`batches` starts with CLEAN), then each corruption."""
    clean = CleanAttention(model)
    for corruption, batch in batches.items():
        hooks, residuals = residual_hooks(model)
        shifts = None
        if corruption == CLEAN and watched:
            hooks = hooks + clean.hooks()
        elif corruption in watched:
            pattern_hooks, shifts = clean.comparison()
            hooks = hooks + pattern_hooks
        pixels = pixel_values(model, batch)
        logits, begins = model.run_with_hooks(pixels, fwd_hooks=hooks), partial(first_not_finite, model, pixels)
        scored = score(logits, batch.labels, batch.image_ids, f"the model {name!r}", begins, present=present)
        found[corruption].performance.append(scored)
        found[corruption].lens.append(read_lens(model, residuals, batch.labels, batch.image_ids, name=name))
        if shifts is not None:
            shift = AttentionShift.of(batch.image_ids, clean, shifts, name)
            found[corruption].attention.append(shift.head(attention_count))


def _tables(found: Mapping[tuple[str, Condition], _Results]) -> StudyTables:
    import pandas as pd

    performance, lens, attention = [], [], []
    for (name, corruption), condition in found.items():
        labels = {"model": name, "corruption": corruption.key}
        performance.append(Performance.concatenate(condition.performance).to_frame(**labels))
        lens.append(LogitLens.concatenate(condition.lens).to_frame(**labels))
        if condition.attention:
            attention.append(AttentionShift.concatenate(condition.attention).to_frame(**labels))
    columns = "model corruption image_id layer entropy_clean entropy entropy_difference cosine squared_difference"
    return StudyTables(
        pd.concat(performance, ignore_index=True),
        pd.concat(lens, ignore_index=True),
        pd.concat(attention, ignore_index=True) if attention else pd.DataFrame(columns=columns.split()),
    )
