"""Spectral distances, rank correlation and the relabelling test against scipy, loops and known answers."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.analysis import CorruptionSpectrum, corruption_spectrum, rank_correlation, relabelling_p_value
from mechvit.analysis.robustness.spectral_distance import spectral_distances
from mechvit.data import Corruption

NAMES = [Corruption("fog", level) for level in range(1, 6)]


def spectra(powers: np.ndarray, step: float = 0.1):
    bins = torch.arange(powers.shape[-1]).double() * step
    return [
        (name, CorruptionSpectrum(torch.arange(len(power)), bins, torch.from_numpy(power)))
        for name, power in zip(NAMES, powers, strict=False)
    ]


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_distances_match_scipy_s_and_are_a_metric(seed):
    powers = np.random.default_rng(seed).uniform(size=(5, 3, 9)) ** 3
    names, found = spectral_distances(spectra(powers))
    places, mean = np.arange(9) * 0.1, powers.mean(1)
    wanted = [[scipy.stats.wasserstein_distance(places, places, a, b) for b in mean] for a in mean]
    assert names == NAMES
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert (found[:, None] <= found[:, :, None] + found[None] + 1e-12).all()
    _, scaled = spectral_distances(spectra(powers * np.array([1, 2, 3, 4, 5])[:, None, None]))
    np.testing.assert_allclose(scaled, found, atol=1e-12)


def test_blur_lies_nearer_to_blur_than_to_noise(tiny_images):
    keys = ("gaussian_blur_2", "box_blur_2", "gaussian_noise_4", "speckle_noise_5")
    found = [(Corruption.parse(key), corruption_spectrum(tiny_images, key)) for key in keys]
    _, distance = spectral_distances(found)
    assert max(distance[0, 1], distance[2, 3]) < min(distance[0, 2], distance[0, 3], distance[1, 2], distance[1, 3])


def test_what_cannot_be_compared_is_refused():
    one = spectra(np.ones((1, 2, 4)))
    with pytest.raises(ValueError, match="give at least one"):
        spectral_distances([])
    with pytest.raises(ValueError, match="of one size"):
        spectral_distances([*one, *spectra(np.ones((1, 2, 5)))])
    with pytest.raises(ValueError, match="fog_1 changes none of the images"):
        spectral_distances(spectra(np.zeros((1, 2, 4))))


@given(seed=st.integers(0, 2**31), ties=st.booleans())
@settings(max_examples=20, deadline=None)
def test_rank_correlation_matches_scipy_s(seed, ties):
    x, y = np.random.default_rng(seed).normal(size=(2, 4, 12))
    if ties:
        x, y = np.round(x), np.round(y)
    wanted = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(rank_correlation(x, y), wanted, atol=1e-12)


def test_what_differs_by_rounding_is_equal():
    x = np.array([0.1 + 0.2, 0.3, 0.5, 0.1])
    assert 0.1 + 0.2 != 0.3
    assert rank_correlation(x, np.array([1.0, 1, 2, 0])) == pytest.approx(1)


def test_no_order_has_no_correlation():
    rising, flat = np.arange(5.0), np.ones(5)
    assert np.isnan(rank_correlation(rising, flat))
    assert np.isnan(rank_correlation(np.array([1, np.nan, 2]), np.arange(3.0)))
    assert rank_correlation(rising, -rising) == pytest.approx(-1)


def pairs_of(n: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.divmod(np.arange(n * n), n)
    return first[first != second], second[first != second]


def test_p_value_matches_all_relabellings():
    """Among 5 things all 120 relabellings can be gone through."""
    generator = np.random.default_rng(3)
    points = generator.normal(size=(5, 2))
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    first, second = pairs_of(5)
    value = -distance[first, second] + generator.normal(0, 2, len(first))
    seen = abs(scipy.stats.spearmanr(distance[first, second], value).statistic)
    other = [
        abs(scipy.stats.spearmanr(distance[np.array(p)[first], np.array(p)[second]], value).statistic)
        for p in permutations(range(5))
    ]
    exact = np.mean(np.array(other) >= seen - 1e-12)
    assert 0.01 < exact < 0.9
    found = relabelling_p_value(distance, first, second, value, permutations=4000)
    assert found == pytest.approx(exact, abs=0.03)


def test_p_value_is_small_for_a_planted_relation_and_uniform_without_one():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(9, 2))
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    first, second = pairs_of(9)
    planted = relabelling_p_value(distance, first, second, -distance[first, second], permutations=500)
    assert planted == pytest.approx(1 / 501)
    null = []
    for seed in range(60):
        other = np.random.default_rng(seed).normal(size=(9, 2))
        value = np.linalg.norm(other[:, None] - other, axis=-1)[first, second]
        null.append(relabelling_p_value(distance, first, second, value, permutations=100, seed=seed))
    assert scipy.stats.kstest(null, "uniform").pvalue > 1e-3


def test_p_value_of_nothing_is_nan():
    first, second = pairs_of(3)
    assert np.isnan(relabelling_p_value(np.ones((3, 3)), first, second, np.arange(6.0), permutations=5))
