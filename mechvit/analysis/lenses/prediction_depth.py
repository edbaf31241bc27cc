"""Prediction depth: the layer from which on a lens predicts the model's final class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from mechvit.analysis.inputs import Images
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.results import AveragedResult, Columns
from mechvit.analysis.statistics.tidy_tables import check_columns, tidy
from mechvit.analysis.summaries.bootstrap_draws import image_matrix
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition

from .comparison import LensReading, compare_lenses
from .tuned_lens import TunedLens

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

SUBSETS = ("all", "both_correct")


@dataclass(frozen=True, repr=False)
class PredictionDepth(AveragedResult):
    """One entry per image, on the CPU."""

    SUMMARISED: ClassVar[Columns] = ((), ("depth", "correct"))

    image_id: Int[Tensor, " images"]
    label: Int[Tensor, " images"]
    prediction: Int[Tensor, " images"]
    """The model's prediction, at the last layer."""
    depth: Int[Tensor, " images"]
    """Layer from 0 (the embedding) to n_layers (the last block's output)."""

    @property
    def correct(self) -> Bool[Tensor, " images"]:
        """Whether the model's prediction is the label."""
        return self.prediction == self.label

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per image: the labels, image_id, label, prediction, correct, depth."""
        columns = {"label": self.label, "prediction": self.prediction, "correct": self.correct, "depth": self.depth}
        return tidy(self.image_id, columns, labels)

    @classmethod
    def of(cls, reading: LensReading) -> PredictionDepth:
        """Compute the depth from a lens's readings (see `compare_lenses`)."""
        return cls(reading.image_id, reading.label, reading.prediction[:, -1], depth_of(reading.prediction))


def depth_of(predictions: Int[Tensor, "images layers"]) -> Int[Tensor, " images"]:
    """Return the earliest layer from which on every prediction equals the last one."""
    settled = (predictions == predictions[:, -1:]).flip(1).long().cumprod(1).sum(1)
    return predictions.shape[1] - settled


@checked
def prediction_depth(
    model: HookedViT,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    lens: TunedLens | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> PredictionDepth:
    """Find the earliest layer from which on a lens predicts the model's final class, image by image.

    Args:
        model: any HookedViT with a head.
        lens: a tuned lens of this model; None takes the logit lens.
        images, corruption, batch_size, seed, progress: as in `compare_lenses`.

    Raises:
        ValueError: as `compare_lenses`.

    Source: arXiv:2106.09647, section 2. The source uses k-nearest-neighbour probes on the training set's
    representations and compares with the last probe; here a lens reads through the model's own head, so that no
    training set is needed and the last layer is the model itself. A class that the lens cannot read yet counts as not
    yet predicted.
    """
    readings = compare_lenses(
        model, {"lens": lens}, images, corruption, batch_size=batch_size, seed=seed, progress=progress
    )
    return PredictionDepth.of(readings["lens"])


@checked
def depth_summary(
    depths: pd.DataFrame,
    *,
    base: str = "base",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute each model's mean prediction depth and its change from the base model's, on the same images.

    Args:
        depths: `PredictionDepth.to_frame` with the labels model, corruption and lens.
        base: the model relative to which changes are computed.
        resamples, level, seed: settings of the bootstrap over images, paired over models, corruptions and lenses.

    Returns:
        model, corruption, lens, subset, n, depth, low, high, change, change_low, change_high: in layers; negative is
        earlier than the base. The subset `both_correct` contains the images that model and base both get right under
        the corruption: wrong predictions settle late, so that a difference in accuracy alone would change the mean
        depth.

    Raises:
        ValueError: a missing column, a base that the table lacks, or images that some model lacks.
    """
    import pandas as pd

    check_columns(depths, "model", "corruption", "lens", "image_id", "depth", "correct")
    if base not in set(depths["model"]):
        raise ValueError(f"base must be one of the table's models, {', '.join(depths['model'].unique())}; got {base!r}")
    conditions, depth = image_matrix(depths, "depth", ("model", "corruption", "lens"))
    _, correct = image_matrix(depths, "correct", ("model", "corruption", "lens"))
    place = {condition: column for column, condition in enumerate(conditions)}
    sums, keys = [], []
    for (model, corruption, lens), own in place.items():
        other = place[base, corruption, lens]
        both = correct[:, own] * correct[:, other]
        for subset, kept in zip(SUBSETS, (np.ones_like(both), both), strict=True):
            keys.append((model, corruption, lens, subset, int(kept.sum())))
            sums += [kept, kept * depth[:, own], kept * (depth[:, own] - depth[:, other])]
    means = resampled_means(np.stack(sums, axis=1), resamples=resamples, seed=seed)
    with np.errstate(invalid="ignore"):
        values, changes = means[:, 1::3] / means[:, ::3], means[:, 2::3] / means[:, ::3]
    rows = [
        (*key, *interval(value, level), *interval(change, level))
        for key, value, change in zip(keys, values.T, changes.T, strict=True)
    ]
    names = "model corruption lens subset n depth low high change change_low change_high"
    return pd.DataFrame(rows, columns=names.split())
