"""Corruption error: errors by corruption and severity, relative to a reference's, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from mechvit.analysis.behaviour.performance import Performance, present_classes, require_classifier, score
from mechvit.analysis.finite import first_not_finite
from mechvit.analysis.inputs import Images, corrupted_batches, pixel_values
from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means
from mechvit.analysis.statistics.tidy_tables import check_columns
from mechvit.analysis.summaries.bootstrap_draws import Draws, image_matrix
from mechvit.arguments import checked
from mechvit.data.conditions import as_condition, parse_condition
from mechvit.data.corruption_spec import CLEAN, GROUPS, IMAGENET_C, Condition, listed_order

from .corruption_spectrum import BANDS

if TYPE_CHECKING:
    import pandas as pd

    from mechvit.models import HookedViT

ALEXNET_ERROR: dict[str, float] = {"clean": 0.435} | dict(
    zip(
        IMAGENET_C,
        (
            0.886428,
            0.894468,
            0.922640,
            0.819880,
            0.826268,
            0.785948,
            0.798360,
            0.866816,
            0.826572,
            0.819324,
            0.564592,
            0.853204,
            0.646056,
            0.717840,
            0.606500,
        ),
        strict=True,
    )
)
"""AlexNet's mean error over the severities of each corruption, the reference of published figures for ImageNet-C."""
ERROR_QUANTITIES: tuple[str, ...] = ("error", "corruption_error", "relative_error")
"""Quantities of a robustness summary."""


@checked
@torch.inference_mode()
def corrupted_performance(
    models: Mapping[str, HookedViT],
    images: Images,
    corruptions: Collection[Condition | str],
    *,
    clean: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
    progress: str | None = None,
) -> pd.DataFrame:
    """Classify every image clean and under every corruption; each batch is corrupted once for all models.

    Args:
        models: name -> model; each sees the images as its own processor resizes them.
        corruptions: those to apply.
        clean: classify clean images first, even if `clean` is not among the corruptions.
        images, batch_size, seed, progress: as in `evaluate`.

    Returns:
        One row per model, corruption and image: model, corruption, and the columns of `Performance.to_frame`.

    Raises:
        ValueError: no models, nothing to apply, no images, another input size, labels that are not classes, logits that
            are not finite.
    """
    import pandas as pd

    if not models:
        raise ValueError("there is no model to classify with; give a mapping of at least one name to a HookedViT")
    for model in models.values():
        require_classifier(model, images)
    applied = list(dict.fromkeys(map(as_condition, [CLEAN, *corruptions] if clean else corruptions)))
    if not applied:
        raise ValueError("there is no condition to classify under; give at least one corruption, or clean=True")
    found: dict[tuple[str, Condition], list[Performance]] = {(name, c): [] for name in models for c in applied}
    present = present_classes(images)
    for batch in corrupted_batches(models, images, applied, batch_size, seed=seed, progress=progress):
        for c, shown in batch.conditions:
            for name in batch.models:
                pixels = pixel_values(models[name], shown)
                who, begins = f"the model {name!r}", partial(first_not_finite, models[name], pixels)
                logits = models[name](pixels)
                found[name, c].append(score(logits, shown.labels, shown.image_ids, who, begins, present=present))
    frames = [
        Performance.concatenate(parts).to_frame(model=name, corruption=c.key) for (name, c), parts in found.items()
    ]
    return pd.concat(frames, ignore_index=True)


@checked
def mean_corruption_error(
    performance: pd.DataFrame,
    *,
    reference: str | Mapping[str, float] = "base",
    bands: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute every model's corruption error, relative corruption error and their means.

    With E(s, c) a model's error at severity s of corruption c, R(s, c) the reference's, and E(0), R(0) on clean images:

        corruption error  CE(c) = sum_s E(s, c) / sum_s R(s, c)
        relative error    sum_s (E(s, c) - E(0)) / sum_s (R(s, c) - R(0))

    The mean corruption error mCE is CE's mean over corruptions, and so is the relative mCE; 1 is the reference itself,
    less is more robust. The relative error tells a model that loses little under corruption from one that is better
    everywhere. It is NaN where the interval of its denominator contains 0, since the reference then has no certain loss
    to compare with. Means leave such families out, the same ones for every model, and report how many remain.

    Args:
        performance: per image, as `corrupted_performance` and `study` give it; the sums run over the levels in it.
        reference: the name of a model in the table, whose errors are resampled with the others'; or given errors, as
            `ALEXNET_ERROR`: a family's mean over its levels by its name, and `clean`.
        bands: family -> band of its measured frequencies (`family_bands`), over which means are taken too; none by
            default.
        resamples, level, seed: settings of the percentile bootstrap, paired over models and corruptions.

    Returns:
        model, group, family (a condition's `series`), level, quantity, families, value, low, high. `level` 0 is a
        family's sum over its levels (for `error`, the mean), others single levels, for which the ratios are of that
        level alone and not there where reference errors are given. The family `clean` has its error alone; `all` is the
        mean over a group's families, with the group `low`, `middle` or `high` over a band's, and with the group `all`
        over every family: mCE. `families` is the number of families in a mean. Resamples in which a denominator is not
        positive are left out.

    Raises:
        ValueError: a reference that the table or the given errors lack, a model without clean images or without some of
            the corruptions, or images that some model lacks.

    Source: Hendrycks and Dietterich, arXiv:1903.12261, section 4.1, there with AlexNet as the reference.
    """
    import pandas as pd

    errors = _error_draws(performance, resamples, seed)
    corruptions = _corruptions(errors)
    _check_reference(reference, errors, corruptions)
    rows = []
    for model in dict.fromkeys(performance["model"]):
        rows.append((model, "clean", "clean", 0, "error", 1, *interval(errors[model, "clean"], level)))
        for key, draws in _quantities(errors, model, corruptions, reference, bands or {}, level):
            rows.append((model, *key, *interval(draws, level)))
    names = ["model", "group", "family", "level", "quantity", "families", "value", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def _quantities(
    errors: Draws,
    model: str,
    corruptions: list[Condition],
    reference: str | Mapping[str, float],
    bands: Mapping[str, str],
    confidence: float,
) -> Iterator[tuple[tuple[str, str, int, str, int], np.ndarray]]:
    """Yield (group, family, level, quantity, families) with its draws, for levels, families, groups, bands, all."""
    whole: dict[str, dict[str, np.ndarray]] = {}
    groups = {c.series: c.group for c in corruptions}
    for family, group in groups.items():
        members = [c for c in corruptions if c.series == family]
        for part in ([c] for c in members if c.level):
            against = reference if isinstance(reference, str) else None
            for name, draws in _family(errors, model, part, against, confidence).items():
                yield (group, family, part[0].level, name, 1), draws
        whole[family] = _family(errors, model, members, reference, confidence)
        for name, draws in whole[family].items():
            yield (group, family, 0, name, 1), draws
    for group in (*dict.fromkeys([*GROUPS, *groups.values()]), *(band for band, _ in BANDS), "all"):
        chosen = [family for family in whole if group in ("all", groups[family], bands.get(family))]
        for name in ERROR_QUANTITIES if chosen else ():
            known = [whole[family][name] for family in chosen if not np.isnan(whole[family][name][0])]
            yield (group, "all", 0, name, len(known)), np.mean(known or [whole[chosen[0]][name]], axis=0)


def _family(
    errors: Draws,
    model: str,
    members: list[Condition],
    reference: str | Mapping[str, float] | None,
    confidence: float,
) -> dict[str, np.ndarray]:
    """Compute every quantity of one model over some levels of one family; without a reference only the error."""

    def mean_error(name: str) -> np.ndarray:
        return np.mean([errors[name, c.key] for c in members], axis=0)

    error, clean = mean_error(model), errors[model, "clean"]
    if reference is None:
        return {"error": error}
    if isinstance(reference, str):
        theirs, theirs_clean = mean_error(reference), errors[reference, "clean"]
    else:
        theirs, theirs_clean = (np.full_like(error, reference[key]) for key in (members[0].series, "clean"))
    return {
        "error": error,
        "corruption_error": _ratio(error, theirs, bool(theirs[0] > 0)),
        "relative_error": _ratio(
            error - clean, theirs - theirs_clean, bool(interval(theirs - theirs_clean, confidence).low > 0)
        ),
    }


def _ratio(above: np.ndarray, below: np.ndarray, sure: bool) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sure & (below > 0), above / below, np.nan)


def _error_draws(performance: pd.DataFrame, resamples: int, seed: int) -> Draws:
    """Return (model, corruption) -> draws of the error."""
    check_columns(performance, "model", "corruption", "image_id", "rank")
    table = performance.assign(wrong=performance["rank"] > 0)
    columns, wrong = image_matrix(table, "wrong", ("model", "corruption"))
    return dict(zip(columns, resampled_means(wrong, resamples=resamples, seed=seed).T, strict=True))


def _corruptions(errors: Draws) -> list[Condition]:
    """Return the corruptions that every model was tested under, in the order of `listed_order`."""
    tested: dict[str, set[str]] = {}
    for model, key in errors:
        tested.setdefault(model, set()).add(key)
    every = set().union(*tested.values())
    for model, keys in tested.items():
        if lacking := (every | {"clean"}) - keys:
            raise ValueError(
                f"every model must be tested on clean images and under the same corruptions; {model} lacks "
                f"{', '.join(sorted(lacking))}"
            )
    found = [parse_condition(key) for key in every - {"clean"}]
    if not found:
        raise ValueError("the table must hold at least one corruption besides clean; it has clean images only")
    return sorted(found, key=listed_order)


def _check_reference(reference: str | Mapping[str, float], errors: Draws, corruptions: list[Condition]) -> None:
    models = dict.fromkeys(model for model, _ in errors)
    if isinstance(reference, str) and reference not in models:
        raise ValueError(
            f"reference must be one of the table's models, {', '.join(models)}, or given errors; got {reference!r}"
        )
    if not isinstance(reference, str) and (lacking := {"clean", *(c.series for c in corruptions)} - set(reference)):
        raise ValueError(
            f"the reference's errors must cover clean and every family of the table; {', '.join(sorted(lacking))} "
            "missing"
        )
