"""The units of an interval: the clusters that images come in, and the strata that clusters were drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from mechvit.analysis.statistics.tidy_tables import check_known
from mechvit.settings_checks import check_choice

if TYPE_CHECKING:
    import pandas as pd

MOST_NAMED = 3
"""Number of labels that an error names."""


@dataclass(frozen=True, eq=False)
class Design:
    """The columns of a per-image table that name the units of an interval, or their labels, one an image.

    Raises:
        SettingError: a `small_strata` that is no choice.
    """

    cluster: str | Sequence[Any] | np.ndarray | None = None
    """The scene, patient, video or file that images share, which are then not independent of each other; None where
    each image is a cluster of its own."""
    stratum: str | Sequence[Any] | np.ndarray | None = None
    """The group that a cluster was drawn within, such as its class; None where there is one. A stratum needs two
    clusters."""
    seed: str | None = None
    """The column that names the training seed of a row's model; None where one training is read."""
    small_strata: Literal["refuse", "drop"] = "refuse"
    """Treatment of strata of one cluster: refuse them, or leave their images out and name these in the result."""

    def __post_init__(self) -> None:
        check_choice(self, small_strata=("refuse", "drop"))

    def of(self, table: pd.DataFrame) -> Design:
        """Return the design with the labels of a table's images, in order of image_id, in place of columns' names.

        Args:
            table: tidy, with image_id and the columns named; an image may have several rows.

        Raises:
            ValueError: a missing column, a label that is missing, or an image with two labels.
        """
        names = [name for name in (self.cluster, self.stratum) if isinstance(name, str)]
        check_known(table, "image_id", *names)
        images = table.drop_duplicates(["image_id", *names]).sort_values("image_id", kind="stable")
        if (twice := images["image_id"].duplicated()).any():
            rows = images.loc[images["image_id"] == images["image_id"][twice].iloc[0]]
            name = next(name for name in names if rows[name].nunique() > 1)
            raise ValueError(
                f"an image has one {name}; the image {rows['image_id'].iloc[0]} has {_listed(rows[name].unique())}"
            )
        labels = {
            name: images[column].to_numpy()
            for name, column in (("cluster", self.cluster), ("stratum", self.stratum))
            if isinstance(column, str)
        }
        if self.cluster is None:
            labels["cluster"] = images["image_id"].to_numpy()
        return replace(self, **labels)

    def __repr__(self) -> str:
        parts = [f"{name}={self._said(name)}" for name in ("cluster", "stratum") if getattr(self, name) is not None]
        return f"Design({', '.join(parts + ([f'seed={self.seed!r}'] if self.seed else []))})"

    def _said(self, name: str) -> str:
        labels = getattr(self, name)
        return repr(labels) if isinstance(labels, str) else f"<{len(set(labels))} of {len(labels)} images>"


@dataclass(frozen=True)
class Units:
    """Clusters and strata by number."""

    cluster: Int[np.ndarray, " images"]
    """Number of each image's cluster; -1 for images that are left out."""
    stratum: Int[np.ndarray, " clusters"]
    """Number of each cluster's stratum."""
    left_out: str = ""
    """The images that are left out, and why; empty where none is."""

    @classmethod
    def of(cls, design: Design, images: int, *, variance: bool = True) -> Units:
        """Return the clusters and strata of a design by number.

        Args:
            design: with labels, one an image (`Design.of`), or with None for each image by itself.
            images: number of images.
            variance: whether a variance is to be estimated, for which a stratum needs two clusters.

        Raises:
            ValueError: labels that are missing, of another number than the images, or columns' names; a cluster in two
                strata; a stratum of one cluster, unless these are to be dropped; no stratum that is left.
        """
        if not isinstance(design, Design):
            raise ValueError(f"the units of an interval are a Design; got {type(design).__name__}")
        if images < 1:
            raise ValueError("an interval needs images; got none")
        cluster, names = _numbers("cluster", design.cluster, images, alone=True)
        stratum, strata = _numbers("stratum", design.stratum, images, alone=False)
        pairs = np.unique(np.stack([cluster, stratum]), axis=1)
        of_cluster = np.full(len(names), -1)
        of_cluster[pairs[0]] = pairs[1]
        if pairs.shape[1] > len(names):
            where = int(pairs[0, np.flatnonzero(np.diff(pairs[0]) == 0)[0]])
            within = _listed(strata[pairs[1, pairs[0] == where]])
            raise ValueError(
                f"a cluster lies in one stratum; the cluster {names[where]!r} lies in {within}: name clusters of "
                "different strata differently"
            )
        units = cls(cluster, of_cluster)
        return units._with_variance(strata, design) if variance else units

    def _with_variance(self, strata: np.ndarray, design: Design) -> Units:
        """Return the units without strata of one cluster, or refuse these."""
        small = np.bincount(self.stratum, minlength=len(strata)) < 2
        if not small.any():
            return self
        what = (
            f"{int(small.sum())} of {len(strata)} strata, as {_listed(strata[small])}"
            if design.stratum is not None
            else "all images"
        )
        if design.small_strata == "refuse" or small.all():
            raise ValueError(
                f"a variance needs two clusters or more in every stratum; {what} lie in one cluster: give more "
                'images, a design without strata, or small_strata="drop", where other strata are left'
            )
        kept = ~small[self.stratum]
        number = np.where(kept, np.cumsum(kept) - 1, -1)
        cluster = number[self.cluster]
        left_out = f"{int((cluster < 0).sum())} images of {what} are left out: a stratum needs two clusters"
        return Units(cluster, np.unique(self.stratum[kept], return_inverse=True)[1], left_out)

    @property
    def images(self) -> int:
        """Number of images that are not left out."""
        return int((self.cluster >= 0).sum())

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return len(self.stratum)

    @property
    def strata(self) -> int:
        """Number of strata."""
        return int(self.stratum.max()) + 1

    @property
    def df(self) -> int:
        """Degrees of freedom of a variance: clusters minus strata."""
        return self.clusters - self.strata

    @property
    def sizes(self) -> Float[np.ndarray, " clusters"]:
        """Number of images in each cluster."""
        return self.sums(np.ones((len(self.cluster), 1)))[:, 0]

    def sums(self, values: Float[np.ndarray, "images statistics"]) -> Float[np.ndarray, "clusters statistics"]:
        """Return the sums of values over the images of each cluster."""
        found = np.zeros((self.clusters, values.shape[1]))
        kept = self.cluster >= 0
        np.add.at(found, self.cluster[kept], values[kept])
        return found

    def deviations(
        self, influence: Float[np.ndarray, "clusters statistics"]
    ) -> Float[np.ndarray, "clusters statistics"]:
        """Return sqrt(n / (n - 1)) (z - mean of z over the stratum), n being the stratum's number of clusters.

        The product of two columns estimates the covariance of the sums of z.
        """
        number = np.bincount(self.stratum).astype(np.float64)
        sums = np.zeros((self.strata, influence.shape[1]))
        np.add.at(sums, self.stratum, influence)
        centred = influence - (sums / number[:, None])[self.stratum]
        return centred * np.sqrt(number / (number - 1))[self.stratum][:, None]

    def holding(self, where: Bool[np.ndarray, "images statistics"]) -> Bool[np.ndarray, "clusters statistics"]:
        """Return which clusters hold an image that counts for a statistic."""
        return self.sums(where.astype(np.float64)) > 0


def _numbers(
    name: str, labels: str | Sequence[Any] | np.ndarray | None, images: int, *, alone: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each image's label, and the labels in order."""
    import pandas as pd

    if isinstance(labels, str):
        raise ValueError(
            f"the design names the column {labels!r} of a table: take its labels first, with design.of(table)"
        )
    if labels is None:
        numbers = np.arange(images) if alone else np.zeros(images, dtype=np.int64)
        return numbers, np.unique(numbers)
    labels = pd.Series(np.asarray(labels)) if not hasattr(labels, "isna") else labels
    if len(labels) != images:
        raise ValueError(f"every image needs a {name}; got {len(labels)} for {images} images")
    if missing := int(labels.isna().sum()):
        raise ValueError(f"every image needs a {name}; {missing} of {images} have none")
    numbers, names = pd.factorize(labels, sort=True)
    return numbers, np.asarray(names)


def _listed(labels: np.ndarray) -> str:
    shown = ", ".join(repr(label) for label in labels[:MOST_NAMED].tolist())
    return f"{shown}{' and others' if len(labels) > MOST_NAMED else ''}"
