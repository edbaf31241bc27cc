"""Distances between a tuned model's distribution of SAE cosines and the base's, with paired bootstrap intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, Interval, interval, resampled_means
from mechvit.analysis.statistics.tidy_tables import check_columns
from mechvit.arguments import checked

if TYPE_CHECKING:
    import pandas as pd

EDGES = 1024
"""Number of points at which the resampled distribution functions are compared."""


@checked
def distribution_distance(
    base: pd.DataFrame, tuned: pd.DataFrame, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Interval]:
    """Compute the Wasserstein-1, Kolmogorov-Smirnov and mean difference between two distributions of cosines.

    With F and G the empirical distribution functions over all patches: wasserstein = integral |F - G|,
    kolmogorov_smirnov = max |F - G|, mean_difference = mean(tuned) - mean(base). Values are exact (scipy). Intervals
    come from resampling images, the same for both, with F and G compared at `EDGES` quantiles of the pooled cosines,
    which changes the sample's distances by at most 2/1023 (cosines in [0, 1]). A resample adds its own noise to |F -
    G|: the intervals of the two distances are biased upwards, and may lie above the value if the distributions agree.

    Args:
        base: image_id and cosine, one row per patch; every image with equally many rows.
        tuned: the same images under the same corruption, in any order.
        resamples, level, seed: number of resamples, confidence level and seed of the bootstrap.

    Raises:
        ValueError: the images or their numbers of patches differ, there are no rows, or cosines are not finite.

    Source: scipy.stats.wasserstein_distance and ks_2samp.
    """
    from scipy.stats import ks_2samp, wasserstein_distance

    values = _by_image(base, tuned)
    flat = [part.ravel() for part in values]
    gap, edges = distribution_gaps(*values)
    means = values[1].mean(1) - values[0].mean(1)
    draws = resampled_means(np.column_stack([gap, means]), resamples=resamples, seed=seed)
    size = np.abs(draws[:, :-1])
    exact = {
        "wasserstein": wasserstein_distance(*flat),
        "kolmogorov_smirnov": ks_2samp(*flat, method="asymp").statistic,
        "mean_difference": flat[1].mean() - flat[0].mean(),
    }
    drawn = (size[:, :-1] @ np.diff(edges), size.max(1), draws[:, -1])
    return {
        name: interval(column, level)._replace(value=float(value))
        for (name, value), column in zip(exact.items(), drawn, strict=True)
    }


def distribution_gaps(
    base: Float[np.ndarray, "images tokens"], tuned: Float[np.ndarray, "images tokens"]
) -> tuple[Float[np.ndarray, "images edges"], Float[np.ndarray, " edges"]]:
    """Return each image's F_tuned - F_base at quantiles of all cosines, and these quantiles.

    The quantiles are values of the data: at most 1/1023 of the pooled cosines lie strictly between two of them, and
    none if there are at most `EDGES` cosines.
    """
    pooled = np.sort(np.concatenate([base, tuned], axis=None))
    places = np.ceil(np.linspace(0, len(pooled) - 1, min(EDGES, len(pooled)))).astype(int)
    edges = np.unique(pooled[places])
    return _distribution(tuned, edges) - _distribution(base, edges), edges


def _distribution(values: Float[np.ndarray, "images tokens"], edges: np.ndarray) -> Float[np.ndarray, "images edges"]:
    """Return the share of each image's values that are at most each edge."""
    images, tokens = values.shape
    bins = np.searchsorted(edges, values) + np.arange(images)[:, None] * len(edges)
    return np.bincount(bins.ravel(), minlength=images * len(edges)).reshape(images, -1).cumsum(1) / tokens


def _by_image(*frames: pd.DataFrame) -> list[Float[np.ndarray, "images tokens"]]:
    """Return the cosines of each frame, one row per image, in the order of the ids."""
    found, ids = [], []
    for frame in frames:
        check_columns(frame, "image_id", "cosine")
        image_id, counts = np.unique(frame["image_id"].to_numpy(), return_counts=True)
        if len(counts) == 0 or len(set(counts)) != 1:
            raise ValueError(
                f"every image must have equally many cosines, at least one; got {sorted(set(counts.tolist()))}: give "
                "the rows of one model, architecture and corruption"
            )
        order = np.argsort(frame["image_id"].to_numpy(), kind="stable")
        values = frame["cosine"].to_numpy(np.float64)[order].reshape(len(image_id), -1)
        if not np.isfinite(values).all():
            raise ValueError(f"cosines must be finite; {int((~np.isfinite(values)).sum())} are not")
        found.append(values)
        ids.append(image_id)
    if not np.array_equal(ids[0], ids[1]) or found[0].shape != found[1].shape:
        only = np.setxor1d(ids[0], ids[1])
        raise ValueError(
            f"both distributions must be over the same patches of the same images; got {found[0].shape} and "
            f"{found[1].shape} cosines, and {len(only)} images in one alone, as {only[:5].tolist()}"
        )
    return found


@checked
def distance_table(
    cosine: pd.DataFrame, *, base: str = "base", resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> pd.DataFrame:
    """Compute `distribution_distance` of every tuned model from the base, per SAE and corruption that both have.

    Args:
        cosine: model, architecture, corruption, image_id, token, cosine; one row per patch.
        base: name of the model that the others are compared with.
        resamples, level, seed: number of resamples, confidence level and seed of the bootstrap.

    Returns:
        model, architecture, corruption, statistic, value, low, high.

    Raises:
        ValueError: no row is the base's, rows repeat, and everything that `distribution_distance` refuses.
    """
    import pandas as pd

    keys = ["model", "architecture", "corruption"]
    check_columns(cosine, *keys, "image_id", "token", "cosine")
    if repeated := int(cosine.duplicated([*keys, "image_id", "token"]).sum()):
        raise ValueError(f"each model, architecture, corruption, image and token comes once; {repeated} rows repeat")
    groups = dict(list(cosine.groupby(keys, sort=False)))
    if not any(model == base for model, _, _ in groups):
        raise ValueError(f"the table must have rows of the model {base!r}; got {list(cosine['model'].unique())}")
    rows = []
    for (model, architecture, corruption), tuned in groups.items():
        own = groups.get((base, architecture, corruption))
        if model == base or own is None:
            continue
        found = distribution_distance(own, tuned, resamples=resamples, level=level, seed=seed)
        rows += [(model, architecture, corruption, statistic, *part) for statistic, part in found.items()]
    return pd.DataFrame(rows, columns=[*keys, "statistic", "value", "low", "high"])
