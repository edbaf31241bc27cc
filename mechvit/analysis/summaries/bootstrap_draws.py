"""Bootstrap draws of every mean that summaries and claims use, from tidy per-image tables.

All functions return a dict: (model, corruption, what) -> draws [1 + resamples], the sample's own value first. All
entries of one dict share their resamples, so that any arithmetic between them is paired over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mechvit.analysis.statistics.bootstrap import RESAMPLES, resampled_means
from mechvit.analysis.statistics.tidy_tables import ROUNDING, check_columns, check_known, check_numbers
from mechvit.arguments import checked

if TYPE_CHECKING:
    import pandas as pd

Draws = dict[tuple[Any, ...], Float[np.ndarray, " draws"]]
TOP_K: dict[str, int] = {"accuracy": 1, "top5": 5, "top10": 10}
"""Metric -> k, the number of highest classes among which the label may be."""
PRESENT = "accuracy_present_classes"
"""Metric: accuracy where the prediction is the best of the classes that some image of the data set has."""


def image_matrix(
    frame: pd.DataFrame, value: str, by: Sequence[str], *, complete: bool = True
) -> tuple[list[tuple[Any, ...]], Float[np.ndarray, "images columns"]]:
    """Arrange a tidy table as a matrix of one row per image (in order of image_id) and one column per group.

    Args:
        frame: tidy, one row per image and group.
        value: the column that holds the matrix's values.
        by: the columns that name a group.
        complete: whether every group must hold every image; otherwise missing values are NaN.

    Raises:
        ValueError: a missing column, a repeated image in a group, or images that some group lacks.
    """
    check_columns(frame, value, "image_id", *by)
    if len(frame) == 0:
        raise ValueError(f"the table with the column {value!r} has no rows; there is nothing to summarise")
    check_known(frame, "image_id", *by)
    if frame.duplicated(["image_id", *by]).any():
        raise ValueError(f"each image may appear once for each {', '.join(by)}; some appear twice")
    wide = frame.pivot(index="image_id", columns=list(by), values=value)
    matrix = wide.to_numpy(dtype=np.float64)
    if complete and np.isnan(matrix).any():
        column = int(np.isnan(matrix).any(0).argmax())
        group = ", ".join(map(str, wide.columns[column]))
        raise ValueError(
            f"{value} must be known for all {len(wide)} images, so that they can be paired; the group ({group}) "
            f"lacks {int(np.isnan(matrix[:, column]).sum())}"
        )
    names = wide.columns if len(by) > 1 else [(name,) for name in wide.columns.get_level_values(0)]
    return list(names), matrix


@checked
def performance_draws(performance: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> Draws:
    """Return draws of accuracy, top5, top10, ece and the label's mean probability, by (model, corruption, metric).

    Where the table has the column `rank_present`, `accuracy_present_classes` is among them.

    Top-k is NaN where k is not below the number of classes (the column `classes`; a table without it has enough). ECE
    is recomputed in each resample: 15 bins, L1. Being a sum of absolute values it is biased upwards in small samples,
    and its resamples more so than the sample.
    """
    by = ("model", "corruption")
    check_columns(performance, "rank", "confidence", "probability", "image_id", *by)
    check_numbers(performance, "rank", 0, whole=True)
    check_numbers(performance, "confidence", -ROUNDING, 1 + ROUNDING)
    conditions, rank = image_matrix(performance, "rank", by)
    _, confidence = image_matrix(performance, "confidence", by)
    _, probability = image_matrix(performance, "probability", by)
    gaps = _calibration_gaps(rank == 0, confidence)
    columns = [*((rank < k).astype(np.float64) for k in TOP_K.values()), probability, gaps]
    widths = np.cumsum([c.shape[1] for c in columns])[:-1]
    means = np.split(resampled_means(np.hstack(columns), resamples=resamples, seed=seed), widths, axis=1)
    means[-1] = np.abs(means[-1]).reshape(len(means[-1]), len(conditions), -1).sum(-1)
    names = [*TOP_K, "probability", "ece"]
    classes = performance.groupby(list(by))["classes"].min() if "classes" in performance else {}
    draws_of = {
        (*condition, name): draws[:, i]
        if TOP_K.get(name, 0) < classes.get(condition, np.inf)
        else np.full(len(draws), np.nan)
        for name, draws in zip(names, means, strict=True)
        for i, condition in enumerate(conditions)
    }
    if "rank_present" not in performance:
        return draws_of
    conditions, among = image_matrix(performance, "rank_present", by)
    present = resampled_means((among == 0).astype(np.float64), resamples=resamples, seed=seed)
    return draws_of | {(*condition, PRESENT): present[:, i] for i, condition in enumerate(conditions)}


def _calibration_gaps(
    correct: np.ndarray, confidence: Float[np.ndarray, "images conditions"]
) -> Float[np.ndarray, "images conditions_x_bins"]:
    """Return `calibration_gaps` of each condition, side by side."""
    import torch

    from mechvit.analysis.behaviour.calibration import calibration_gaps

    gaps = calibration_gaps(torch.tensor(correct), torch.tensor(confidence)).numpy()
    return gaps.reshape(len(gaps), -1)


@checked
def lens_draws(lens: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> Draws:
    """Return draws of the label's mean probability, by (model, corruption, layer)."""
    columns, values = image_matrix(lens, "probability", ("model", "corruption", "layer"))
    return dict(zip(columns, resampled_means(values, resamples=resamples, seed=seed).T, strict=True))


@checked
def attention_draws(
    attention: pd.DataFrame, quantity: str = "entropy_difference", *, resamples: int = RESAMPLES, seed: int = 0
) -> Draws:
    """Return draws of a quantity's mean over images, by (model, corruption, layer)."""
    columns, values = image_matrix(attention, quantity, ("model", "corruption", "layer"))
    return dict(zip(columns, resampled_means(values, resamples=resamples, seed=seed).T, strict=True))


@checked
def first_correct_draws(
    first: pd.DataFrame, *, base: str | None = "base", resamples: int = RESAMPLES, seed: int = 0
) -> Draws:
    """Return draws of the first correct layer, by (model, corruption, what).

    `what` is "mean" (over the images that the model gets right at some layer), "difference" (model minus base, over the
    images that both get right at some layer; negative is earlier), and the constants "n" and "n_paired", arrays of one
    count. A resample that holds no such image is NaN. Without a base only "mean" and "n" are there. A table without
    rows (no model is right at any layer) gives no draws.
    """
    if len(first) == 0:
        return {}
    check_columns(first, "layer")
    check_numbers(first, "layer", 0, whole=True)
    columns, layers = image_matrix(first, "layer", ("model", "corruption"), complete=False)
    position = {column: i for i, column in enumerate(columns)}
    right = ~np.isnan(layers)
    values = np.where(right, layers, 0.0)
    sums = {(*c, "mean"): (values[:, i], right[:, i]) for c, i in position.items()}
    for (model, corruption), i in position.items():
        j = position.get((base, corruption))
        if j is not None:
            both = right[:, i] & right[:, j]
            sums[model, corruption, "difference"] = (both * (values[:, i] - values[:, j]), both)
    stacked = np.stack([column for pair in sums.values() for column in pair], axis=1).astype(np.float64)
    means = resampled_means(stacked, resamples=resamples, seed=seed)
    with np.errstate(invalid="ignore"):
        ratios = means[:, 0::2] / means[:, 1::2]
    draws: Draws = dict(zip(sums, ratios.T, strict=True))
    for (model, corruption, what), (_, mask) in sums.items():
        draws[model, corruption, "n" if what == "mean" else "n_paired"] = np.array([mask.sum()])
    return draws
