"""Groups of images (a site, a scanner) and their clusters in tables, and summaries of performance by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechvit.analysis.statistics.bootstrap import LEVEL, RESAMPLES
from mechvit.analysis.statistics.clusters.design import Design
from mechvit.analysis.statistics.tidy_tables import check_columns
from mechvit.arguments import checked
from mechvit.data.sources.folders.clusters import UNITS

from .tables import performance_summary

if TYPE_CHECKING:
    import datasets
    import pandas as pd

NO_GROUP = "(none)"
"""Name of the group of images that have no value in a column."""


@checked
def with_image_groups(table: pd.DataFrame, images: datasets.Dataset) -> pd.DataFrame:
    """Return a per-image table with the columns of a data set that group its images (`mechvit.data.group_columns`).

    Raises:
        ValueError: an image of the table that the data set lacks, or a column that the table has already.
    """
    from mechvit.data import group_columns

    return _with_columns(table, images, group_columns(images))


@checked
def with_image_units(table: pd.DataFrame, images: datasets.Dataset) -> pd.DataFrame:
    """Return a per-image table with the clusters of a data set's images, and their strata, where it has them.

    Raises:
        ValueError: as in `with_image_groups`.
    """
    return _with_columns(table, images, _units(images))


@checked
def image_design(images: datasets.Dataset) -> Design:
    """Return the units of intervals over a data set's images, with labels in order of image_id.

    These are its clusters within their strata, where it has the columns `cluster` and `stratum`; else single images.
    """
    import pandas as pd

    cluster, stratum = (name if name in images.column_names else None for name in UNITS)
    names = ["image_id", *_units(images)]
    return Design(cluster, stratum).of(pd.DataFrame({name: images[name][:] for name in names}))


def _units(images: datasets.Dataset) -> list[str]:
    return [name for name in UNITS if name in images.column_names]


def _with_columns(table: pd.DataFrame, images: datasets.Dataset, names: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    if taken := sorted(set(names) & set(table.columns)):
        raise ValueError(f"groups must have names of their own; the table has {', '.join(taken)} already")
    about = pd.DataFrame({name: images[name][:] for name in ("image_id", *names)})
    if missing := set(table["image_id"]) - set(about["image_id"]):
        raise ValueError(f"{len(missing)} images of the table are not among the {len(about)} that have groups")
    return table.merge(about.fillna(dict.fromkeys(names, NO_GROUP)), on="image_id", how="left", sort=False)


@checked
def performance_by_group(
    performance: pd.DataFrame,
    by: Sequence[str],
    *,
    base: str | None = "base",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute the summary of performance within each group of images.

    Args:
        performance: per image, as `evaluate` returns it, with the columns `by` (`with_image_groups`).
        by: columns that group the images, each on its own.
        base, resamples, level, seed: as in `performance_summary`, whose intervals resample the images of the group.

    Returns:
        by (the column), group, n (images of the group), and the columns of `performance_summary`. The calibration error
        is biased upwards in small groups.

    Raises:
        ValueError: as in `performance_summary`; a column that the table lacks.
    """
    import pandas as pd

    check_columns(performance, "image_id", *by)
    parts = []
    for column in by:
        for group, part in performance.groupby(column, dropna=False):
            summary = performance_summary(part, base=base, resamples=resamples, level=level, seed=seed)
            summary.insert(0, "n", part["image_id"].nunique())
            summary.insert(0, "group", NO_GROUP if pd.isna(group) else str(group))
            summary.insert(0, "by", column)
            parts.append(summary)
    return pd.concat(parts, ignore_index=True)
