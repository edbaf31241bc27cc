"""Predictions of a classifier on images that need no labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechvit.analysis.condition_images import shown_to
from mechvit.analysis.finite import first_not_finite, model_name
from mechvit.analysis.inputs import Images, image_batches, on_cpu, pixel_values
from mechvit.analysis.statistics.results import Columns
from mechvit.analysis.statistics.tidy_tables import PerImage, tidy
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition

from .performance import check_logits, require_classifier, strongest

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT


@dataclass(frozen=True, repr=False)
class Predictions(PerImage):
    """One entry per image, all on the CPU."""

    SUMMARISED: ClassVar[Columns] = ((), ("confidence",))

    image_id: Int[Tensor, " images"]
    prediction: Int[Tensor, " images"]
    """Class that scores highest."""
    confidence: Float[Tensor, " images"]
    """Its probability, 0 to 1."""

    def to_frame(self, **labels: str) -> pd.DataFrame:
        """Return one row per image; `labels` are constant columns put first, as in `model="base"`."""
        return tidy(self.image_id, {"prediction": self.prediction, "confidence": self.confidence}, labels)


@checked
@torch.inference_mode()
def predict(
    model: HookedViT,
    images: Images,
    corruption: Condition | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Predictions:
    """Classify every image, with a label or without, under one corruption.

    Arguments are as in `evaluate`, whose predictions and confidences are the same.

    Raises:
        ValueError: as `evaluate`, but for images without a label.
    """
    require_classifier(model)
    parts = []
    for batch in image_batches(model, images, batch_size, conditions=[corruption], progress=progress):
        pixels = pixel_values(model, shown_to(model, batch, corruption, seed=seed))
        logits, begins = model(pixels), partial(first_not_finite, model, pixels)
        unlabelled = torch.full_like(batch.labels, -1)
        check_logits(logits, unlabelled, batch.image_ids, f"the model {model_name(model)!r}", begins, labelled=False)
        share, classes = strongest(logits, 1)
        parts.append(Predictions(on_cpu(batch.image_ids), on_cpu(classes[:, 0]), on_cpu(share[:, 0])))
    return Predictions.concatenate(parts)
