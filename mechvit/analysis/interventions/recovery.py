"""Outcomes of interventions per image, and the share of the gap between two models that they recover."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechvit.analysis.behaviour.answers import divergence
from mechvit.analysis.behaviour.performance import check_logits, label_rank, unrounded
from mechvit.analysis.inputs import on_cpu
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.results import Columns
from mechvit.analysis.statistics.tidy_tables import PerImage, check_columns, tidy
from mechvit.analysis.summaries.bootstrap_draws import image_matrix
from mechvit.arguments import checked

if TYPE_CHECKING:
    import pandas as pd

RECEIVER, GIVER = "receiver", "giver"
"""Names of the two reference conditions: the model that is changed, and the one that values are taken from."""
OUTCOME_COLUMNS = ("correct", "logit_difference")
"""Columns of outcomes that need labels."""
DIVERGENCE = "divergence"
"""Column of the outcome that needs none."""
Effect: TypeAlias = Literal["logit_difference", "divergence"]
"""Quantity whose change is an effect: the logit difference (positive favours the label), or KL(giver | receiver), which
needs no labels (negative is nearer to the giver)."""
NO_SHARE: tuple[str, ...] = ("", "no_gap", "same_answers")
"""Reasons why there is no recovered share: none (there is one); the interval of the gap between receiver and giver
holds 0; or the two differ on no image at all.
"""


@dataclass(frozen=True, repr=False)
class Outcomes(PerImage):
    """Outcomes of one model, or of one intervention on it, with one entry per image; on the CPU."""

    SUMMARISED: ClassVar[Columns] = ((), ("correct", "logit_difference", "divergence"))

    image_id: Int[Tensor, " images"]
    correct: Bool[Tensor, " images"]
    """Whether the label is the prediction; its mean is accuracy."""
    logit_difference: Float[Tensor, " images"]
    """Logit of the label minus that of the image's foil (see `foils`); NaN for an image without a label."""
    divergence: Float[Tensor, " images"]
    """KL(giver | this model), nats, float64; NaN where no giver was given."""

    def to_frame(self, **labels: str | float) -> pd.DataFrame:
        """Return one row per image: the labels (constant columns, as in `layer=3`), image_id, and the outcomes.

        Where images have no label, `correct` is NaN.
        """
        correct = correct_or_nan(self.correct, self.logit_difference)
        values = {"correct": correct, "logit_difference": self.logit_difference, DIVERGENCE: self.divergence}
        return tidy(self.image_id, values, labels)


def correct_or_nan(
    correct: Bool[Tensor, "*any"], logit_difference: Float[Tensor, "*any"]
) -> Bool[Tensor, "*any"] | Float[Tensor, "*any"]:
    """Return what is correct, as numbers with NaN where some logit difference is NaN: those images have no label."""
    unknown = logit_difference.isnan()
    return torch.where(unknown, torch.nan, correct.double()) if bool(unknown.any()) else correct


def foils(labels: Int[Tensor, " batch"], *logits: Float[Tensor, "batch class"]) -> Int[Tensor, " batch"]:
    """Return, for each image, the wrong class with the highest mean log probability over several models.

    It is determined once, from receiver and giver on the images that each sees, and kept for all interventions, so that
    the logit difference is linear in the logits and favours neither model. (The receiver's own strongest wrong class
    would favour others: its margin would be a minimum and the giver's arbitrary, so that any other model would seem to
    gain.)

    Args:
        labels: labels of the images; the class that is found for an image without one (negative) means nothing.
        logits: logits of each model.

    Raises:
        ValueError: a model with one class, which has no wrong class.

    Source: logit differences to a fixed second answer, arXiv:2309.16042 (section 2.2); the choice is ours.
    """
    classes = logits[0].shape[-1]
    if classes < 2:
        raise ValueError(f"a foil is a wrong class, and needs a model of at least 2 classes; got {classes}")
    together = torch.stack([own.float().log_softmax(-1) for own in logits]).mean(0)
    return together.scatter(-1, labels.to(together.device).clamp_min(0)[:, None], -torch.inf).argmax(-1)


def logit_difference(
    logits: Float[Tensor, "*condition batch class"], labels: Int[Tensor, " batch"], foil: Int[Tensor, " batch"]
) -> Float[Tensor, "*condition batch"]:
    """Compute the label's logit minus the foil's, NaN without a label; differentiable, on the logits' device."""
    labels, foil = labels.to(logits.device), foil.to(logits.device)
    batch = torch.arange(len(labels), device=logits.device)
    difference = logits[..., batch, labels.clamp_min(0)] - logits[..., batch, foil]
    return difference if bool((labels >= 0).all()) else difference.where(labels >= 0, torch.nan)


def check_labelled(labels: Int[Tensor, " images"], quantity: Effect) -> None:
    """Refuse images without a label where the logit difference is asked for."""
    if quantity == "logit_difference" and (count := int((labels < 0).sum())):
        raise ValueError(
            f"effects on the logit difference need a label of every image; {count:,} of {len(labels):,} have none: "
            "leave them out, or take quantity='divergence'"
        )


def effect_metric(
    quantity: Effect,
    logits: Float[Tensor, "batch class"],
    labels: Int[Tensor, " batch"],
    foil: Int[Tensor, " batch"],
    giver: Float[Tensor, "batch class"],
) -> Float[Tensor, " batch"]:
    """Compute the quantity whose change is an effect; differentiable, on the logits' device."""
    if quantity == "logit_difference":
        return logit_difference(logits, labels, foil)
    return divergence(giver.to(logits.device).float().log_softmax(-1), logits.float().log_softmax(-1))


def divergence_from(
    giver: Float[Tensor, "batch class"] | None, logits: Float[Tensor, "*condition batch class"]
) -> Float[Tensor, "*condition batch"]:
    """Compute KL(giver | model) of each image, nats, in float64 on the CPU; NaN without a giver."""
    if giver is None:
        return torch.full(logits.shape[:-1], torch.nan, dtype=torch.float64)
    log_giver, log_own = (on_cpu(part).double().log_softmax(-1) for part in (giver, logits))
    return divergence(log_giver.expand_as(log_own), log_own)


def score_outcomes(
    logits: Float[Tensor, "batch class"],
    labels: Int[Tensor, " batch"],
    foil: Int[Tensor, " batch"],
    image_ids: Int[Tensor, " batch"],
    giver: Float[Tensor, "batch class"] | None = None,
) -> Outcomes:
    """Score one batch of logits; differences are stored in float32.

    Args:
        logits: those to score.
        labels: classes; negative for an image without one.
        foil: see `foils`.
        image_ids: ids of the images.
        giver: the giver's logits of the same images, from which the divergence is measured.

    Raises:
        ValueError: logits that are not finite, or labels that are not classes of the model.
    """
    labels = labels.to(logits.device)
    check_logits(logits, labels, image_ids, labelled=False)
    difference = logit_difference(unrounded(logits), labels, foil).float()
    found = (image_ids, is_correct(logits, labels), difference, divergence_from(giver, logits))
    return Outcomes(*map(on_cpu, found))


def is_correct(
    logits: Float[Tensor, "*condition batch class"], labels: Int[Tensor, "*condition batch"]
) -> Bool[Tensor, "*condition batch"]:
    """Return whether the label is the prediction; no without a label."""
    return (label_rank(logits, labels.clamp_min(0)) == 0) & (labels >= 0)


def quantities_in(*tables: pd.DataFrame) -> list[str]:
    """Return the outcomes that all tables hold for some image."""
    return [name for name in (*OUTCOME_COLUMNS, DIVERGENCE) if all(name in t and t[name].notna().any() for t in tables)]


@checked
def recovery(
    interventions: pd.DataFrame,
    references: pd.DataFrame,
    *,
    by: Sequence[str],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute mean outcomes of every intervention, and the share of the gap from receiver to giver that each closes.

    With m the mean over images of a quantity (correct: accuracy; the logit difference; or the divergence from the
    giver, which needs no labels),

        recovered = (m(intervention) - m(receiver)) / (m(giver) - m(receiver))

    0 is the unchanged receiver, 1 the giver; below 0 and above 1 are possible. Of the divergence, whose mean is 0 for
    the giver, this is 1 - KL(giver | intervention) / KL(giver | receiver). Where the gap's own interval contains 0
    there is nothing to recover and the share is NaN. Images without a label count for the divergence alone.

    Args:
        interventions: one row per image and intervention: the columns of `by`, image_id, correct, logit_difference, and
            where it was measured divergence.
        references: the same images once with condition "receiver" and once with "giver".
        by: the columns that name an intervention, such as ("kind", "layer").
        resamples, level, seed: settings of the percentile bootstrap over images, paired over all interventions.

    Returns:
        one row per intervention and quantity: by, quantity ("accuracy", "logit_difference" or "divergence"), value,
        low, high, recovered, recovered_low, recovered_high, and recovered_reason, why there is no share (one of
        `NO_SHARE`); in the interventions' order. Quantities that no image has are left out.

    Raises:
        ValueError: a missing column, images that some condition lacks, or no row.

    Source: normalised patching metrics as in arXiv:2309.16042 (section 2).
    """
    import pandas as pd

    by = list(by)
    check_columns(interventions, "image_id", *by, *OUTCOME_COLUMNS)
    check_columns(references, "image_id", "condition", *OUTCOME_COLUMNS)
    conditions = list(dict.fromkeys(interventions[by].itertuples(index=False, name=None)))
    rows = []
    for quantity in quantities_in(interventions, references):
        drawn = outcome_draws(interventions, references, by, quantity, resamples=resamples, seed=seed)
        receiver, giver = drawn.pop(RECEIVER), drawn.pop(GIVER)
        gap = giver - receiver
        about = interval(gap, level)
        closable = about.low > 0 or about.high < 0
        reason = NO_SHARE[0 if closable else 1 if gap.any() else 2]
        for condition in conditions:
            value = drawn[condition]
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.where(closable & (gap != 0), (value - receiver) / gap, np.nan)
            name = "accuracy" if quantity == "correct" else quantity
            rows.append((*condition, name, *interval(value, level), *interval(share, level), reason))
    names = ["quantity", "value", "low", "high", "recovered", "recovered_low", "recovered_high", "recovered_reason"]
    return pd.DataFrame(rows, columns=[*by, *names])


def outcome_draws(
    interventions: pd.DataFrame,
    references: pd.DataFrame,
    by: Sequence[str],
    quantity: str,
    *,
    needed: Collection[str] = (RECEIVER, GIVER),
    resamples: int,
    seed: int,
) -> dict[Any, Float[np.ndarray, " draws"]]:
    """Return condition (a tuple of `by`, or a reference's name) -> draws of the mean, all over the same resamples.

    Images without a value (those without a label) are left out.

    Raises:
        ValueError: a `needed` reference is missing, or images that some intervention or reference lacks.
    """
    interventions, references = (table[table[quantity].notna()] for table in (interventions, references))
    own, values = image_matrix(interventions, quantity, by)
    two, reference_values = image_matrix(references, quantity, ["condition"])
    ids = [sorted(frame["image_id"].unique()) for frame in (interventions, references)]
    if ids[0] != ids[1]:
        raise ValueError(
            f"interventions and references must be of the same images; got {len(ids[0])} and {len(ids[1])} images with "
            f"{len(set(ids[0]) & set(ids[1]))} in common"
        )
    named = [condition for (condition,) in two]
    if lacking := set(needed) - set(named):
        raise ValueError(
            f"references must hold the conditions {' and '.join(needed)}; {', '.join(sorted(lacking))} missing"
        )
    means = resampled_means(np.hstack([values, reference_values]), resamples=resamples, seed=seed)
    return dict(zip([*own, *named], means.T, strict=True))
