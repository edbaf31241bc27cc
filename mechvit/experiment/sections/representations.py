"""Similarity of residual streams, and what lenses read from them, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from mechvit.analysis.lenses.comparison import LensReading
    from mechvit.analysis.representations.cka import View
    from mechvit.models import HookedViT

FEWEST = 8
"""Fewest images for a similarity of representations with an interval."""


def similarity_table(
    models: Mapping[str, HookedViT],
    images: datasets.Dataset,
    comparisons: list[tuple[View, View]],
    labels: Callable[[View, View], Mapping[str, str]],
    level: float,
    **asked: Any,
) -> pd.DataFrame:
    """Compute the CKA of pairs of views: the columns that `labels` gives of each pair, and those of `CKA.to_frame`.

    Args:
        models: models by name.
        images: at least `FEWEST`.
        comparisons: pairs of a model under a condition.
        labels: pair -> the columns that name it.
        level: coverage of the intervals.
        asked: further arguments of `compare_views`.
    """
    import pandas as pd

    from mechvit import analysis

    groups = min(10, len(images) // 2)  # of images, for the interval; fewer in a quick look
    similar = analysis.compare_views(models, images, comparisons, groups=groups, progress="CKA", **asked)
    frames = [found.to_frame(level=level, **labels(*views)) for views, found in similar.items()]
    return pd.concat(frames, ignore_index=True)


def lens_tables(
    readings: Iterable[tuple[Mapping[str, str], LensReading]], bootstrap: Mapping[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what lenses read and how deep predictions are settled: `lens_comparison_summary`, `depth_summary`.

    Args:
        readings: each with the columns that name it: model, corruption, lens.
        bootstrap: arguments resamples, level and seed of every interval.
    """
    import pandas as pd

    from mechvit import analysis

    frames, depths = [], []
    for labels, read in readings:
        frames.append(read.to_frame(**labels))
        depths.append(analysis.PredictionDepth.of(read).to_frame(**labels))
    return (
        analysis.lens_comparison_summary(pd.concat(frames, ignore_index=True), **bootstrap),
        analysis.depth_summary(pd.concat(depths, ignore_index=True), **bootstrap),
    )
