"""Interpolation and extrapolation between two models' weights: accuracy, loss and logit difference."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mechvit.analysis.inputs import Images, on_cpu
from mechvit.analysis.interventions.model_pair import check_weights_fit, giver_pixels
from mechvit.analysis.interventions.recovery import GIVER, RECEIVER, Outcomes, quantities_in, score_outcomes
from mechvit.analysis.interventions.runner import Found, changes, outcome_frame, run_interventions
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES
from mechvit.analysis.statistics.results import Columns, Result
from mechvit.analysis.statistics.tidy_tables import labelled
from mechvit.arguments import checked
from mechvit.data.corruption_spec import Condition
from mechvit.models.processors.preprocessing import check_alike
from mechvit.settings_checks import FINITE, check_number

from .model_parts import groups_named, model_parts, weights_of, weights_replaced

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

ALPHAS = tuple(step / 8 for step in range(-2, 13))
"""Default places on the line: -0.25 to 1.5 in steps of an eighth."""


@dataclass(frozen=True, repr=False)
class LossOutcomes(Outcomes):
    """Outcomes that include the loss."""

    SUMMARISED: ClassVar[Columns] = ((), ("correct", "logit_difference", "divergence", "loss"))

    loss: Float[Tensor, " images"]
    """Cross-entropy of the label, nats; NaN for an image without a label."""

    def to_frame(self, **labels: str | float) -> pd.DataFrame:
        """Return one row per image, as `Outcomes.to_frame`, with the column loss."""
        return super().to_frame(**labels).assign(loss=self.loss.numpy())


@dataclass(frozen=True, repr=False)
class Interpolation(Result):
    """Outcomes of every mixture of the two models' weights, per image and corruption."""

    outcomes: Found[float | str]
    """(corruption, alpha) -> outcomes; (corruption, "receiver" or "giver") -> those of the base and the tuned model,
    whose foils are used for all.
    """

    def to_frame(self) -> pd.DataFrame:
        """Return rows by image, corruption and alpha: corruption, alpha, and the columns of `LossOutcomes`."""
        mixtures = {key: found for key, found in self.outcomes.items() if key[1] not in (RECEIVER, GIVER)}
        return outcome_frame(mixtures, lambda alpha: {"alpha": alpha})

    def summary(self, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> pd.DataFrame:
        """Return one row per corruption, alpha and quantity, with bootstrap intervals over images.

        Columns: corruption, alpha, quantity (accuracy, logit_difference, loss in nats, and divergence, KL(tuned |
        mixture) in nats, which needs no labels), value, low, high, change, change_low, change_high (minus the base, on
        the same images).
        """
        import pandas as pd

        settings: Any = {"resamples": resamples, "level": level, "seed": seed}
        frames = []
        for corruption, part in self.to_frame().groupby("corruption", sort=False):
            base = self.outcomes[str(corruption), RECEIVER].to_frame()
            measured = [*quantities_in(part, base), *(["loss"] if part["loss"].notna().any() else [])]
            found = changes(part, base, by=["alpha"], quantities=measured, **settings)
            frames.append(labelled(found, {"corruption": corruption}))
        return pd.concat(frames, ignore_index=True)


@checked
@torch.inference_mode()
def interpolate_weights(
    base: HookedViT,
    tuned: HookedViT,
    images: Images,
    corruptions: Collection[Condition | str],
    *,
    alphas: Sequence[float] = ALPHAS,
    parts: Sequence[str] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Interpolation:
    """Evaluate the weights base + alpha (tuned - base) for every alpha.

    Alpha 0 is exactly the base model and 1 exactly the tuned one; below 0 and above 1 is extrapolation. Mixtures are
    recomputed for each batch and run in the base model's place, so that one more set of weights is held and no model is
    changed.

    Args:
        base, tuned: two models of the same config.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the models' own class ids,
            negative for images without one.
        corruptions: those to apply, including `clean` if it is wanted.
        alphas: places on the line.
        parts: parts to interpolate, as in `blocks.3` or `head`, while the rest stays the base model's; None takes all.
        batch_size, seed, progress: as in `evaluate`.

    Raises:
        ValueError: models of different configs, no alpha or a repeated one, an unknown part, and as `evaluate`.

    Source: WiSE-FT, arXiv:2109.01903, section 3; beyond the ends, task arithmetic, arXiv:2212.04089, section 2.
    """
    check_weights_fit(base, tuned, "interpolating weights")
    alphas = [float(alpha) for alpha in alphas]
    for alpha in alphas:
        check_number("alphas", alpha, FINITE)
    if not alphas or len(set(alphas)) < len(alphas):
        raise ValueError(f"alphas must be at least one number, each once; got {alphas}")
    groups = [tuple(model_parts(base))] if parts is None else list(groups_named(base, parts).values())
    chosen = frozenset(part for group in groups for part in group)
    ends = weights_of(base, chosen), weights_of(tuned, chosen)
    if "embed" in chosen:
        processors = {"the base": base.image_processor, "the tuned model": tuned.image_processor}
        check_alike(processors, "to interpolate the embedding", in_="everything")

    def logits_of(pixels: Tensor) -> dict[float | str, Tensor]:
        found: dict[float | str, Tensor] = {
            RECEIVER: base(pixels),
            GIVER: tuned(giver_pixels(base, tuned, pixels)),
        }
        for alpha in alphas:
            with weights_replaced(base, {name: between(ends[0][name], ends[1][name], alpha) for name in ends[0]}):
                found[alpha] = base(pixels)
        return found

    found = run_interventions(
        base, images, corruptions, logits_of, score=score_loss, batch_size=batch_size, seed=seed, progress=progress
    )
    return Interpolation(found)


def between(base: Tensor, tuned: Tensor, alpha: float) -> Tensor:
    """Compute base + alpha (tuned - base), in float32 for half types; exact at alpha 0 and 1."""
    wide = torch.promote_types(base.dtype, torch.float32)
    return torch.lerp(base.to(wide), tuned.to(wide), alpha).to(base.dtype)


def score_loss(
    logits: Float[Tensor, "batch class"], labels: Tensor, foil: Tensor, image_ids: Tensor, giver: Tensor | None = None
) -> LossOutcomes:
    """Score one batch of logits, with the loss, in float32."""
    plain = score_outcomes(logits, labels, foil, image_ids, giver)
    loss = F.cross_entropy(logits.float(), labels.clamp_min(0), reduction="none").where(labels >= 0, torch.nan)
    return LossOutcomes(plain.image_id, plain.correct, plain.logit_difference, plain.divergence, on_cpu(loss))
