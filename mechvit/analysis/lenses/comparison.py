"""Logit lens and tuned lenses on one forward pass: each layer's reading, and its divergence from the model's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.behaviour.performance import check_logits, label_rank, require_classifier, unrounded
from mechvit.analysis.finite import check_finite, first_not_finite, model_name
from mechvit.analysis.inputs import Images, on_cpu
from mechvit.analysis.shared_pass import Hooks, PassBatch, PassMeasurement, run_together
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.results import Columns
from mechvit.analysis.statistics.tidy_tables import check_columns, tidy
from mechvit.analysis.summaries.bootstrap_draws import image_matrix
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition

from .logit_lens import LogitLens, residual_hooks
from .tuned_lens import TunedLens

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

LENS_QUANTITIES = ("probability", "divergence")


@dataclass(frozen=True, repr=False)
class LensReading(LogitLens):
    """Readings of one lens, and their divergence from the model's output."""

    SUMMARISED: ClassVar[Columns] = (("layer",), ("probability", "divergence"))

    divergence: Float[Tensor, "images layers"]
    """KL(model's final distribution || the lens's), nats; 0 at the last layer."""
    prediction: Int[Tensor, "images layers"]

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return a row per image and layer: labels, image_id, layer, probability, rank, divergence, prediction."""
        names = ("probability", "rank", "divergence", "prediction")
        return tidy(self.image_id, {name: getattr(self, name) for name in names}, labels)


@checked
@torch.inference_mode()
def compare_lenses(
    model: HookedViT,
    lenses: Mapping[str, TunedLens | None],
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> dict[str, LensReading]:
    """Read every layer through several lenses, with one forward pass per image.

    Args:
        model: a HookedViT with a head.
        lenses: name -> tuned lens of this model, or None for the logit lens, as {"logit": None, "tuned": lens}.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`, disjoint from those that lenses were trained
            on; labels are the model's own class ids. An image without one (negative) has no probability (NaN) and no
            rank (-1), but a divergence and predictions.
        corruption, batch_size, seed, progress: as in `evaluate`.

    Raises:
        ValueError: no lens, a lens of another model, no images, another input size, labels that are not classes, logits
            that are not finite.

    Source: arXiv:2303.08112, section 3.
    """
    found = LensMeasurement("", model, lenses, images)
    run_together({"": model}, images, [corruption], [found], batch_size, seed=seed, progress=progress)
    return next(iter(found.result().values()))


class LensMeasurement(PassMeasurement):
    """Readings of one model's layers, as one pass gives them.

    Args:
        name: name in the pass of the model that runs.
        model: that model, or one that shares its encoder; its head reads the layers.
        lenses: name -> tuned lens, or None for the logit lens.
        images: the images that are read.

    Raises:
        ValueError: as `compare_lenses`.
    """

    def __init__(self, name: str, model: HookedViT, lenses: Mapping[str, TunedLens | None], images: Images) -> None:
        if not lenses:
            raise ValueError('lenses must name at least one lens, as in {"logit": None}; got none')
        require_classifier(model, images)
        for lens in lenses.values():
            if lens is not None:
                lens.check_model(model)
        self.name, self.model, self.lenses = name, model, lenses
        self._hooks, self._residuals = residual_hooks(model)
        self._found: dict[str, dict[str, list[LensReading]]] = {}

    def hooks(self, batch: PassBatch, name: str, layer: int) -> Hooks:
        """Return the hooks that keep the residual stream at the head's tokens."""
        at = f"blocks.{layer}."
        return [(point, hook) for point, hook in self._hooks if name == self.name and str(point).startswith(at)]

    def read(self, batch: PassBatch) -> None:
        """Read the layers of a batch through every lens."""
        residuals, model = list(self._residuals), self.model
        self._residuals.clear()
        final = unrounded(batch.logits(self.name, model))
        begins = partial(first_not_finite, model, batch.pixels[self.name])
        check_logits(final, batch.labels, batch.image_ids, f"the model {model_name(model)!r}", begins, labelled=False)
        parts = self._found.setdefault(batch.condition.key, {name: [] for name in self.lenses})
        for name, lens in self.lenses.items():
            read = torch.stack((residuals if lens is None else lens.translate(residuals))[:-1])
            earlier = unrounded(model.unembed_residual(read.flatten(0, 1))).view(len(read), *final.shape)
            check_finite(f"logits of the lens {name!r}", list(earlier), model, batch.image_ids)
            found = _read(torch.cat([earlier, final[None]]), batch.labels)
            parts[name].append(LensReading(*map(on_cpu, (batch.image_ids, batch.labels, *found))))

    def result(self) -> dict[str, dict[str, LensReading]]:
        """Return condition -> lens -> all that was read."""
        return {
            key: {name: LensReading.concatenate(found) for name, found in parts.items()}
            for key, parts in self._found.items()
        }


def _read(logits: Float[Tensor, "layer batch class"], labels: Int[Tensor, " batch"]) -> list[Tensor]:
    """Return probability, rank, divergence and prediction, each [batch, layer]."""
    known, log_probability = (labels >= 0).expand(logits.shape[:2]), logits.log_softmax(-1)
    own = labels.clamp_min(0).expand(logits.shape[:2])
    final = log_probability[-1]
    probability = log_probability.gather(-1, own[..., None])[..., 0].exp().float()
    apart = (final.exp() * (final - log_probability)).sum(-1).float()
    probability, rank = probability.where(known, torch.nan), label_rank(logits, own).where(known, -1)
    return [part.T for part in (probability, rank, apart, logits.argmax(-1))]


@checked
def tuned_lens(
    model: HookedViT,
    lens: TunedLens,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> LogitLens:
    """Follow the true class through the layers, each read through its translator: `logit_lens` with a tuned lens.

    Args:
        model: the model that the lens was trained for.
        lens: the result of `train_tuned_lens`.
        images, corruption, batch_size, seed, progress: as in `compare_lenses`.

    Raises:
        ValueError: as `compare_lenses`.
    """
    found = compare_lenses(
        model, {"tuned": lens}, images, corruption, batch_size=batch_size, seed=seed, progress=progress
    )["tuned"]
    return LogitLens(found.image_id, found.label, found.probability, found.rank)


@checked
def lens_comparison_summary(
    readings: pd.DataFrame, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> pd.DataFrame:
    """Compute the label's mean probability and the mean divergence (nats) by layer, for every lens, with intervals.

    Args:
        readings: `LensReading.to_frame` with the labels model, corruption and lens.
        resamples, level, seed: settings of the percentile bootstrap over images, paired over all rows.

    Returns:
        model, corruption, lens, layer, quantity (probability, of the images with a label, and divergence), value, low,
        high.
    """
    import pandas as pd

    by = ["model", "corruption", "lens", "layer"]
    check_columns(readings, "image_id", *by, *LENS_QUANTITIES)
    rows = []
    for quantity in (name for name in LENS_QUANTITIES if readings[name].notna().any()):
        columns, values = image_matrix(readings[readings[quantity].notna()], quantity, by)
        draws = resampled_means(values, resamples=resamples, seed=seed).T
        rows += [(*column, quantity, *interval(found, level)) for column, found in zip(columns, draws, strict=True)]
    return pd.DataFrame(rows, columns=["model", "corruption", "lens", "layer", "quantity", "value", "low", "high"])
