"""Distributions over images as tidy histograms with intervals: first correct layers, and cosines of SAE codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES, intervals, resampled_means
from mechvit.analysis.statistics.tidy_tables import ROUNDING, check_known, check_numbers
from mechvit.arguments import checked
from mechvit.settings_checks import COUNT, check_number

if TYPE_CHECKING:
    import pandas as pd


@checked
def first_correct_histogram(
    first: pd.DataFrame, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> pd.DataFrame:
    """Compute the share of images whose first correct layer is l, for every layer, with a bootstrap interval over
    images.

    Args:
        first: `first_correct` (model, corruption, image_id, layer): images that are correct at some layer.
        resamples, level, seed: settings of the bootstrap.

    Returns:
        model, corruption, layer (0 to the largest of the table), share, low, high (fractions), images.

    Source: the paper's section 4.2.
    """
    import pandas as pd

    check_known(first, "model", "corruption", "image_id")
    check_numbers(first, "layer", 0, whole=True)
    if first.duplicated(["model", "corruption", "image_id"]).any():
        raise ValueError("each image may appear once for each model and corruption; some appear twice")
    layers = np.arange(int(first["layer"].max()) + 1)
    parts = []
    for (model, corruption), group in first.groupby(["model", "corruption"], sort=False):
        onehot = (group["layer"].to_numpy(int)[:, None] == layers).astype(float)
        share, low, high = intervals(resampled_means(onehot, resamples=resamples, seed=seed), level)
        columns = {"layer": layers, "share": share, "low": low, "high": high, "images": len(group)}
        parts.append(pd.DataFrame({"model": model, "corruption": corruption, **columns}))
    return pd.concat(parts, ignore_index=True)


@checked
def cosine_histogram(
    cosine: pd.DataFrame, *, bins: int = 60, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> pd.DataFrame:
    """Compute the density of cosines in equal bins, with bootstrap intervals over images (an image's patches stay
    together).

    Args:
        cosine: `sae_cosine` (model, architecture, corruption, cosine, and image_id); without image_id the intervals are
            NaN.
        bins: number of bins between -1 (0 if no cosine is negative) and 1.
        resamples, level, seed: settings of the bootstrap.

    Returns:
        model, architecture, corruption, left and right (a bin's edges), density, low, high, patches (of the whole
        histogram), and their mean cosine.

    Source: the paper's section 4.4 (its distributions of cosines).
    """
    import pandas as pd

    check_number("bins", bins, COUNT)
    check_known(cosine, "model", "architecture", "corruption", *(["image_id"] if "image_id" in cosine else []))
    check_numbers(cosine, "cosine", -1 - ROUNDING, 1 + ROUNDING)
    edges = np.linspace(-1.0 if cosine["cosine"].min() < 0 else 0.0, 1.0, bins + 1)
    width, parts = edges[1] - edges[0], []
    for (model, kind, corruption), group in cosine.groupby(["model", "architecture", "corruption"], sort=False):
        values = group["cosine"].to_numpy(np.float64)
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)  # like numpy.histogram's bins
        known = "image_id" in group
        image = pd.factorize(group["image_id"])[0] if known else np.zeros(len(values), int)
        counts = np.bincount(image * bins + place, minlength=bins * (image.max() + 1)).reshape(-1, bins)
        draws = resampled_means(counts, resamples=resamples if known else 1, seed=seed)
        density, low, high = intervals(draws / (draws.sum(1, keepdims=True) * width), level)
        low, high = (low, high) if known else (np.full(bins, np.nan), np.full(bins, np.nan))
        about = {"model": model, "architecture": kind, "corruption": corruption}
        columns = {"left": edges[:-1], "right": edges[1:], "density": density, "low": low, "high": high}
        parts.append(pd.DataFrame({**about, **columns, "patches": len(values), "mean_cosine": values.mean()}))
    return pd.concat(parts, ignore_index=True)
