"""Parts of a sample that no cluster is divided between, with every stratum's share in each."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from mechvit.arguments import checked
from mechvit.settings_checks import SEED, SHARE, Range, check_number

from .design import Design, Units

FOLDS = Range(2)


@checked
def cluster_folds(
    design: Design, images: int, *, folds: int = 2, repeats: int = 5, seed: int = 0
) -> Int[np.ndarray, "repeats images"]:
    """Return the fold, 0 to folds - 1, of each image, in each of several random divisions.

    The clusters of each stratum, in random order, are dealt to the folds in turn, each stratum where the one before
    ended: a stratum's shares differ by at most one cluster, and so do the folds. The same labels and seed give the same
    folds.

    Args:
        design: the units (`Design.of`); here a stratum of one cluster is no fault.
        images: number of images.
        folds: parts of a division: each is held out once.
        repeats: number of divisions.
        seed: seed of all divisions.

    Raises:
        ValueError: as in `Design`; fewer clusters than folds.
    """
    check_number("folds", folds, FOLDS)
    check_number("repeats", repeats, Range(1))
    check_number("seed", seed, SEED)
    units = Units.of(design, images, variance=False)
    if units.clusters < folds:
        raise ValueError(f"{folds} folds need {folds} clusters or more; the {images} images lie in {units.clusters}")
    generator = np.random.default_rng(seed)
    return np.stack([_dealt(units, generator, folds)[units.cluster] for _ in range(repeats)])


@checked
def cluster_half(design: Design, images: int, fraction: float = 0.5, *, seed: int = 0) -> Bool[np.ndarray, " images"]:
    """Draw the images to choose on, whole clusters, about a fraction of those of each stratum; others are held out.

    Raises:
        ValueError: as in `Design`; a part would be empty.
    """
    check_number("fraction", fraction, SHARE)
    check_number("seed", seed, SEED)
    units = Units.of(design, images, variance=False)
    count = round(fraction * units.clusters)
    if not 0 < count < units.clusters:
        raise ValueError(
            f"one part of the clusters is for choosing and the other for reporting, and each needs one or more; the "
            f"fraction {fraction} of {units.clusters} clusters gives {count} and {units.clusters - count}: give images "
            "of more clusters or another fraction"
        )
    generator = np.random.default_rng(seed)
    order = _shuffled(units, generator)
    steps = np.floor(np.arange(units.clusters + 1) * (count / units.clusters) + generator.random())
    chosen = np.zeros(units.clusters, dtype=bool)
    chosen[order] = np.diff(steps) > 0
    return chosen[units.cluster]


def _shuffled(units: Units, generator: np.random.Generator) -> Int[np.ndarray, " clusters"]:
    """Return the clusters stratum by stratum, the strata and the clusters of each in random order."""
    order = generator.permutation(units.clusters)
    rank = generator.permutation(units.strata)
    return order[np.argsort(rank[units.stratum[order]], kind="stable")]


def _dealt(units: Units, generator: np.random.Generator, folds: int) -> Int[np.ndarray, " clusters"]:
    found = np.empty(units.clusters, dtype=np.int64)
    found[_shuffled(units, generator)] = np.arange(units.clusters) % folds
    return found
