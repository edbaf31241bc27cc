"""Interventions on a model, streamed over corrupted images: outcomes, changes and recovered shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.analysis.behaviour.performance import check_logits, require_classifier
from mechvit.analysis.condition_images import check_same_image
from mechvit.analysis.finite import model_name
from mechvit.analysis.inputs import Images, corrupted_batches, pixel_values
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval
from mechvit.analysis.statistics.tidy_tables import check_columns, labelled
from mechvit.arguments import checked
from mechvit.data.corruption_spec import Condition

from .recovery import (
    GIVER,
    OUTCOME_COLUMNS,
    RECEIVER,
    Outcomes,
    foils,
    outcome_draws,
    quantities_in,
    recovery,
    score_outcomes,
)

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

Key = TypeVar("Key", bound=Hashable)
Found = dict[tuple[str, Key], Outcomes]
"""(corruption, intervention) -> outcomes."""


@torch.inference_mode()
def run_interventions(
    model: HookedViT,
    images: Images,
    corruptions: Collection[Condition | str],
    logits_of: Callable[[Float[Tensor, "batch 3 height width"]], Mapping[Key, Float[Tensor, "batch class"]]],
    *,
    score: Callable[..., Outcomes] = score_outcomes,
    giver_of: Callable[[Key], Hashable] = lambda key: GIVER,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> Found[Key]:
    """Score interventions on the same pixels, batch by batch; each batch is corrupted once for all.

    Args:
        model: the receiver, whose image processor normalises the images.
        images: a `datasets.Dataset` (prepared or raw) or an `ImageBatch`; labels are the model's own class ids,
            negative for images without one.
        corruptions: those to apply, including `clean` if it is wanted.
        logits_of: pixels -> the logits of every intervention, and of the two unchanged models under the keys "receiver"
            and "giver", whose foils under each corruption are used for all interventions.
        score: function of logits, labels, foils, image ids and the giver's logits that returns the outcomes.
        giver_of: intervention -> key of its giver's logits, where interventions on both models are run at once.
        batch_size, seed, progress: as in `evaluate`.

    Raises:
        ValueError: no corruptions, no images, another input size, labels that are not classes, logits that are not
            finite, or a model without a head.
    """
    applied = check_same_image(corruptions, "an intervention")
    if not applied:
        raise ValueError("name at least one corruption, as in gaussian_blur_4, or clean; got none")
    require_classifier(model, images)
    names = {RECEIVER: f"the receiver {model_name(model)!r}", GIVER: "the giver"}
    found: dict[tuple[str, Key], list[Outcomes]] = {}
    for batch in corrupted_batches({RECEIVER: model}, images, applied, batch_size, seed=seed, progress=progress):
        for corruption, shown in batch.conditions:
            logits = logits_of(pixel_values(model, shown))
            both = [logits[name] for name in (RECEIVER, GIVER)]  # type: ignore[index]
            for key, values in logits.items():
                who = names.get(str(key), f"{names[RECEIVER]}, changed by {key},")
                check_logits(values, shown.labels, shown.image_ids, f"under {corruption.key} {who}", labelled=False)
            foil = foils(shown.labels, *both)
            for key, values in logits.items():
                given = logits[giver_of(key)]  # type: ignore[index]
                outcomes = score(values, shown.labels, foil, shown.image_ids, given)
                found.setdefault((corruption.key, key), []).append(outcomes)
    return {key: type(parts[0]).concatenate(parts) for key, parts in found.items()}


def outcome_frame(
    found: Mapping[tuple[str, Key], Outcomes], labels: Callable[[Key], Mapping[str, Any]]
) -> pd.DataFrame:
    """Return one row per image, corruption and intervention, which `labels` maps to the columns that name it."""
    import pandas as pd

    frames = [outcomes.to_frame(corruption=corruption, **labels(key)) for (corruption, key), outcomes in found.items()]
    return pd.concat(frames, ignore_index=True)


@checked
def effects(
    interventions: pd.DataFrame,
    references: pd.DataFrame,
    *,
    by: Sequence[str],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute every intervention's outcomes under each corruption, their change, and the share of the gap recovered.

    Args:
        interventions, references: as for `mechvit.analysis.recovery`, with the additional column `corruption`.
        by: the columns that name an intervention.
        resamples, level, seed: settings of the bootstrap over images, paired over all interventions of a corruption.

    Returns:
        one row per corruption, intervention and quantity (accuracy, logit_difference, divergence): corruption, `by`,
        quantity, value, low, high, change, change_low, change_high (minus the receiver, on the same images), recovered,
        recovered_low, recovered_high, recovered_reason (see `mechvit.analysis.recovery`).
    """
    import pandas as pd

    check_columns(references, "corruption", "condition", "image_id", *OUTCOME_COLUMNS)
    check_columns(interventions, "corruption", "image_id", *by, *OUTCOME_COLUMNS)
    frames = []
    for corruption in dict.fromkeys(references["corruption"]):
        own, theirs = (table[table["corruption"] == corruption] for table in (interventions, references))
        receiver = theirs[theirs["condition"] == RECEIVER]
        measured = quantities_in(own, theirs)
        changed = changes(own, receiver, by=by, quantities=measured, resamples=resamples, level=level, seed=seed)
        shares = recovery(own, theirs, by=by, resamples=resamples, level=level, seed=seed)
        names = [name for name in shares if name.startswith("recovered")]
        shares = shares[[*by, "quantity", *names]]
        found = changed.merge(shares, on=[*by, "quantity"], validate="one_to_one")
        frames.append(labelled(found, {"corruption": corruption}))
    return pd.concat(frames, ignore_index=True)


def changes(
    frame: pd.DataFrame,
    receiver: pd.DataFrame,
    *,
    by: Sequence[str],
    quantities: Sequence[str] = OUTCOME_COLUMNS,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute the mean of every quantity and its paired change from the receiver, with intervals.

    Images without a value (those without a label) are left out.

    Args:
        frame: one row per image and intervention: the columns of `by`, image_id and the quantities.
        receiver: the receiver's outcomes, once per image.

    Returns:
        one row per intervention and quantity: `by`, quantity, value, low, high, change, change_low, change_high.

    Raises:
        ValueError: a missing column, or images that some intervention or the receiver lacks.
    """
    import pandas as pd

    own, rows = receiver.assign(condition=RECEIVER), []
    for quantity in quantities:
        drawn = outcome_draws(frame, own, by, quantity, needed=(RECEIVER,), resamples=resamples, seed=seed)
        start = drawn.pop(RECEIVER)
        name = "accuracy" if quantity == "correct" else quantity
        for condition in dict.fromkeys(frame[list(by)].itertuples(index=False, name=None)):
            value = drawn[condition]
            rows.append((*condition, name, *interval(value, level), *interval(value - start, level)))
    names = ["quantity", "value", "low", "high", "change", "change_low", "change_high"]
    return pd.DataFrame(rows, columns=[*by, *names])
