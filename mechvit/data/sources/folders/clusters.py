"""Clusters of images that are not independent of each other (a patient, a scene, a video), as columns of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechvit.terminal import printable

from .groups import PARENT, group_columns, text_columns, with_groups

if TYPE_CHECKING:
    import datasets

CLUSTER, STRATUM = "cluster", "stratum"
"""Columns of text: the cluster of an image, and the group that the cluster was drawn within."""
UNITS = (CLUSTER, STRATUM)


def with_clusters(rows: datasets.Dataset, cluster: str, root: str) -> datasets.Dataset:
    """Return images with the column `cluster`, and maybe `stratum`.

    Args:
        rows: images with the columns `path` and `file`, and those of groups.
        cluster: the name of one of the columns of groups; or `parent`, a regular expression with a group `cluster` (and
            maybe `stratum`), or a table with such columns, as in `with_groups`.
        root: as in `with_groups`.

    Raises:
        ValueError: as in `with_groups`; no column `cluster`, or images without one.
    """
    import datasets

    for name, values in _columns(rows, cluster, root).items():
        if missing := [path for path, value in zip(rows["path"][:], values, strict=True) if not value]:
            raise ValueError(
                f"every image needs a {name}; {len(missing):,} of {len(rows):,} have none, as {printable(missing[0])}"
            )
        rows = rows.add_column(name, list(values), feature=datasets.Value("string"))
    return rows


def with_units(rows: datasets.Dataset, groups: str | None, cluster: str | None, root: str) -> datasets.Dataset:
    """Return images with the columns of their groups and clusters, where these are asked for."""
    rows = rows if groups is None else with_groups(rows, groups, root)
    return rows if cluster is None else with_clusters(rows, cluster, root)


def _columns(rows: datasets.Dataset, cluster: str, root: str) -> dict[str, list[str | None]]:
    if cluster in group_columns(rows):
        return {CLUSTER: rows[cluster][:]}
    found = text_columns(rows, cluster, root, what="the cluster, if it is no group,", own=frozenset(UNITS))
    if cluster == PARENT:
        return {CLUSTER: list(found[PARENT])}
    if CLUSTER not in found:
        raise ValueError(
            f"the cluster of an image is a group or a column called {CLUSTER} (and {STRATUM} its stratum, where it has "
            f"one); got {', '.join(found)}"
        )
    return {name: list(found[name]) for name in UNITS if name in found}
