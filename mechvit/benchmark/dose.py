"""Doses: the divergence of a changed model from the unchanged one, and the scale of an edit that gives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.behaviour.answers import divergence
from mechvit.analysis.behaviour.performance import check_logits, require_classifier
from mechvit.analysis.condition_images import check_same_image, shown_to
from mechvit.analysis.finite import model_name
from mechvit.analysis.inputs import Images, image_batches, pixel_values
from mechvit.analysis.weights.model_parts import weights_replaced
from mechvit.arguments import checked
from mechvit.data.corruption_spec import CLEAN, Condition

if TYPE_CHECKING:
    from mechvit.models import HookedViT

FIRST, LEAST, MOST = 0.05, 1e-9, 64.0
"""The scale that is tried first, the smallest and the largest; in units of a weight's norm."""
STEPS = 60
"""Most scales that are tried."""


class Answers:
    """A model's answers to some images under one condition, beside which those with other weights are set.

    Args:
        model: a classifier.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are not read.
        condition: what is done to the images.
        batch_size, seed: as in `mechvit.analysis.evaluate`.

    Raises:
        ValueError: no classifier, no images, logits that are not finite.
    """

    def __init__(
        self,
        model: HookedViT,
        images: Images,
        condition: Condition | str = CLEAN,
        *,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        require_classifier(model)
        (self.condition,) = check_same_image([condition], "a dose")
        self.model, self.images, self.batch_size, self.seed = model, images, batch_size, seed
        self.log_probabilities = self._of(model, checks=True)

    def pixels(self, model: HookedViT | None = None) -> Iterator[Float[Tensor, "batch 3 height width"]]:
        """Stream the images' pixels as a model, by default the own one, takes them."""
        model = model or self.model
        for batch in image_batches(model, self.images, self.batch_size, conditions=[self.condition]):
            yield pixel_values(model, shown_to(model, batch, self.condition, seed=self.seed))

    def divergence_to(self, model: HookedViT) -> float:
        """Compute the mean over images of KL(own answer | another model's), nats; infinite where that is not finite."""
        found = float(divergence(self.log_probabilities, self._of(model)).mean())
        return found if math.isfinite(found) else math.inf

    def divergence_with(self, weights: Mapping[str, Tensor]) -> float:
        """Compute the same for the model itself with some other weights."""
        with weights_replaced(self.model, weights):
            return self.divergence_to(self.model)

    @torch.inference_mode()
    def _of(self, model: HookedViT, *, checks: bool = False) -> Float[Tensor, "images classes"]:
        """Return log probabilities in float64 on the CPU."""
        found: list[Tensor] = []
        seen = 0
        for pixels in self.pixels(model):
            logits = model(pixels)
            if checks:
                unlabelled = torch.full((len(logits),), -1)
                ids = torch.arange(seen, seen + len(logits))
                check_logits(logits, unlabelled, ids, f"the model {model_name(model)!r}", labelled=False)
            seen += len(logits)
            found.append(logits.double().cpu().log_softmax(-1))
        return torch.cat(found)


@checked
def mean_divergence(
    first: HookedViT,
    second: HookedViT,
    images: Images,
    condition: Condition | str = CLEAN,
    *,
    batch_size: int | None = None,
    seed: int = 0,
) -> float:
    """Compute the mean over images of KL(first | second), nats.

    Between models that were tuned alike with two seeds it is the unit in which a planted change's strength is counted.

    Args:
        first, second: classifiers of the same classes.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are not read.
        condition: what is done to the images.
        batch_size, seed: as in `mechvit.analysis.evaluate`.

    Raises:
        ValueError: models of other classes or none, no images, logits that are not finite.
    """
    if first.cfg.id2label != second.cfg.id2label:
        raise ValueError(
            "a divergence is of two models with the same classes (id2label); these differ "
            f"({first.cfg.n_classes} and {second.cfg.n_classes} classes): give models tuned from one base"
        )
    answers = Answers(first, images, condition, batch_size=batch_size, seed=seed)
    other = Answers(second, images, condition, batch_size=batch_size, seed=seed)
    return float(divergence(answers.log_probabilities, other.log_probabilities).mean())


def scale_of_dose(measure: Callable[[float], float], dose: float, most: float, tolerance: float) -> tuple[float, float]:
    """Find a scale at which a quantity that starts at 0 takes a value, by doubling, halving and bisection.

    Args:
        measure: function of a scale; continuous, 0 at 0.
        dose: the wanted value, above 0.
        most: largest scale allowed, itself included.
        tolerance: largest error of the value as a share of the dose.

    Returns:
        the scale tried that comes nearest to the dose (by ratio), and its value: one within the tolerance, or the
        strongest reachable where the quantity stays below the dose up to `most`, or to 64.
    """
    tried: dict[float, float] = {}
    low, high = 0.0, math.inf
    scale, most = min(FIRST, most), min(most, MOST)
    while len(tried) < STEPS:
        value = tried[scale] = measure(scale)
        if abs(value / dose - 1) <= tolerance:
            break
        if value < dose:
            low = scale
        else:
            high = scale
        if low >= most or high <= LEAST:
            break
        above = min(2 * low, most) if math.isinf(high) else high / 2
        scale = math.sqrt(low * high) if low > 0 and math.isfinite(high) else above
    return min(tried.items(), key=lambda each: abs(math.log(each[1] / dose)) if each[1] > 0 else math.inf)
