"""Intervals over images and training seeds at once, for seeds that are all measured on the same images.

With A = s^2 / K from the variance s^2 between K seeds' values, and B the variance between clusters of their mean, the
interaction of seed and cluster is in both: its part I, from influences less their mean over seeds, is taken off once.

    V = max(A + B - I, A, B),  I = sum over seeds of V_cluster(z_s - mean of z) / (K (K - 1))
    df = (A' + B - I)^2 / (A'^2 / (K - 1) + B^2 / d + I^2 / ((K - 1) d)),  d = clusters - strata

or the degrees of freedom of A or of B where V is that one. A' = A (K + 1) / (K - 1): with A itself, as Satterthwaite
has it, three seeds that happen to agree give too many degrees of freedom and intervals that cover too seldom. With A'
95% intervals cover 95 to 96% of Gaussian data with three or five seeds, and 92 to 97% with two
(`benchmarks/interval_coverage.py`).

Source: the analysis of variance of a crossed two-way random layout; Satterthwaite, Biometrics Bulletin 2 (1946).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mechvit.analysis.statistics.bootstrap import LEVEL
from mechvit.analysis.statistics.tidy_tables import check_columns, check_known
from mechvit.arguments import checked

from .cluster_t import Level, estimated
from .design import Design
from .estimates import WITH_SEEDS, Estimates
from .linearised import Linearised, linearised_means

if TYPE_CHECKING:
    import pandas as pd


@checked
def seed_and_cluster_interval(
    values: Float[np.ndarray, "seed image *statistic"],
    design: Design,
    *,
    level: Level = LEVEL,
    against: float = 0.0,
) -> Estimates:
    """Compute means over seeds and images, whose intervals cover other images and other training seeds.

    The base model and the split of the images are held fixed. With one seed the interval covers images alone, and
    `covers` says so.

    Args:
        values: of each seed's model, such as tuned - clean-tuned of the same seed, on the same images, in the order of
            the design's labels; one statistic, or several in the last axis.
        design: the units.
        level: coverage, of all or of each statistic.
        against: the value that p-values are for.

    Raises:
        ValueError: as in `Design` and `Units`; no seed, values that are not finite, or more axes.
    """
    if values.ndim > 3 or len(values) == 0:
        raise ValueError(f"values are by seed, image and maybe statistic; got an array of shape {values.shape}")
    by_seed = values.reshape(*values.shape[:2], -1)
    return over_seeds([linearised_means(one, design) for one in by_seed], level=level, against=against)


@checked
def over_seeds(found: Sequence[Linearised], *, level: Level = LEVEL, against: float = 0.0) -> Estimates:
    """Compute means over seeds of any linearised statistics (ratios, jackknifed ones), as `seed_and_cluster_interval`.

    Args:
        found: of each seed's model, in the same units.
        level, against: as in `seed_and_cluster_interval`.

    Raises:
        ValueError: no seed, or other units or statistics in one of them.
    """
    if not found:
        raise ValueError("an interval over seeds needs a seed; got none")
    first = found[0].units
    for one in found[1:]:
        same = len(one.value) == len(found[0].value) and np.array_equal(one.units.cluster, first.cluster)
        if not (same and np.array_equal(one.units.stratum, first.stratum)):
            raise ValueError("every seed's model is measured on the same images, in the same clusters and strata")
    seeds = len(found)
    if seeds == 1:
        return estimated(found[0], level=level, against=against)
    values, influences = np.stack([one.value for one in found]), np.stack([one.influence for one in found])
    mean = influences.mean(0)
    holds = np.any([one.holds for one in found], axis=0)
    pooled = Linearised(values.mean(0), mean, holds, first)
    between_seeds = values.var(axis=0, ddof=1) / seeds
    within = np.square([first.deviations(one - mean) for one in influences]).sum((0, 1))
    variance, df = _combined(between_seeds, pooled.variance, within / (seeds * (seeds - 1)), seeds - 1, pooled.df)
    return Estimates.by_t(
        pooled.value,
        variance,
        df,
        level=level,
        against=against,
        clusters=pooled.clusters,
        covers=WITH_SEEDS,
        left_out=first.left_out,
    )


@checked
def by_seed(table: pd.DataFrame, value: str, design: Design) -> tuple[Float[np.ndarray, "seed image"], Design]:
    """Return a column of a tidy table as values by seed and image, and the design with the images' labels.

    Args:
        table: one row a seed and image, with image_id and the columns that the design names.
        value: the column of the values.
        design: with the column of the seeds.

    Raises:
        ValueError: as in `Design.of`; a design without seed, a seed that has an image twice or lacks one.
    """
    if design.seed is None:
        raise ValueError("values by seed need a design that names the column of the seeds")
    check_known(table, "image_id", design.seed)
    check_columns(table, value)
    if table.duplicated([design.seed, "image_id"]).any():
        raise ValueError("each image may appear once for each seed; some appear twice")
    wide = table.pivot(index=design.seed, columns="image_id", values=value).to_numpy(dtype=np.float64)
    if missing := int(np.isnan(wide).sum()):
        raise ValueError(f"{value} must be known for every image and seed; {missing} of {wide.size} are not")
    return wide, design.of(table)


def _combined(
    seeds: np.ndarray, clusters: np.ndarray, both: np.ndarray, df_seeds: int, df_clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of a mean over seeds and clusters, and its degrees of freedom."""
    total = seeds + clusters - both
    floor = np.maximum(seeds, clusters)
    with np.errstate(divide="ignore", invalid="ignore"):
        raised = seeds * (df_seeds + 2) / df_seeds
        parts = raised**2 / df_seeds + clusters**2 / df_clusters + both**2 / (df_seeds * df_clusters)
        satterthwaite = (raised + clusters - both) ** 2 / parts
    of_floor = np.where(seeds >= clusters, df_seeds, df_clusters)
    return np.maximum(total, floor), np.where(total > floor, satterthwaite, of_floor)
