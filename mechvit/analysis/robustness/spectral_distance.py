"""Distances between corruptions' spectra, and a test of whether a relation between pairs follows them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from jaxtyping import Float, Int

from mechvit.analysis.statistics.correlation import rank_correlation
from mechvit.arguments import checked
from mechvit.data.corruption_spec import Condition

from .corruption_spectrum import CorruptionSpectrum

PERMUTATIONS = 2000
"""Default number of relabellings for a p-value."""


@checked
def spectral_distances(
    spectra: Collection[tuple[Condition, CorruptionSpectrum]],
) -> tuple[list[Condition], Float[np.ndarray, "corruptions corruptions"]]:
    """Compute how far the power of one corruption's change must be moved in frequency to become another's, cycles per
    pixel.

    With p the mean spectrum over images, scaled to sum to 1, and F its cumulative sum over annuli of width df:

        distance(a, b) = df sum_k |F_a(k) - F_b(k)|

    It is 0 where two corruptions change the same frequencies in the same proportions, however strongly.

    Raises:
        ValueError: no spectra, spectra of images of different sizes, or a corruption that changes nothing.

    Source: the first Wasserstein distance on a line (Villani, Topics in Optimal Transportation, 2003, section 2.2).
    """
    spectra = list(spectra)
    if not spectra:
        raise ValueError("there is no spectrum to compare; give at least one")
    frequency = spectra[0][1].frequency
    cumulative = []
    for corruption, spectrum in spectra:
        if spectrum.frequency.shape != frequency.shape or bool((spectrum.frequency != frequency).any()):
            raise ValueError("spectra must be of images of one size; their frequencies differ")
        power = spectrum.power.double().mean(0).numpy()
        if not power.sum() > 0:
            raise ValueError(f"{corruption.key} changes none of the images, so that it has no spectrum; leave it out")
        cumulative.append(np.cumsum(power / power.sum()))
    stacked = np.stack(cumulative)
    width = float(frequency[1] - frequency[0])
    return [c for c, _ in spectra], width * np.abs(stacked[:, None] - stacked).sum(-1)


@checked
def relabelling_p_value(
    distance: Float[np.ndarray, "n n"],
    first: Int[np.ndarray, " pairs"],
    second: Int[np.ndarray, " pairs"],
    value: Float[np.ndarray, " pairs"],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """Compute the p-value of the rank correlation between distance and value, by permuting the labels of things.

    Pairs that share a member are not independent, so that the usual p-value of a correlation over pairs is too small.
    Permuting whole things keeps that dependence: (1 + count) / (1 + permutations), two-sided.

    Args:
        distance: distances between all things.
        first, second: indices of the two things in each pair.
        value: value of each pair.
        permutations: number of relabellings.
        seed: seed of the relabellings.

    Source: Mantel, Cancer Research 27 (1967).
    """
    generator = np.random.default_rng(seed)
    n = len(distance)
    order = np.array([np.arange(n), *(generator.permutation(n) for _ in range(permutations))])
    drawn = np.abs(
        rank_correlation(distance[order[:, first], order[:, second]], np.broadcast_to(value, (len(order), len(value))))
    )
    if np.isnan(drawn[0]):
        return float("nan")
    return float((1 + (drawn[1:] >= drawn[0] - 1e-12).sum()) / (1 + permutations))
