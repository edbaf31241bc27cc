"""Folds and halves that no cluster is divided between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.analysis.statistics import Design, cluster_folds, cluster_half


def drawn(seed, strata=6):
    """Images in clusters of unlike size, in strata of unlike number of clusters."""
    rng = np.random.default_rng(seed)
    stratum_of = np.repeat(np.arange(strata), rng.integers(1, 9, size=strata))
    cluster = np.repeat(np.arange(len(stratum_of)), rng.integers(1, 12, size=len(stratum_of)))
    order = rng.permutation(len(cluster))
    return cluster[order], stratum_of[cluster[order]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_clusters_stay_whole_and_strata_have_their_shares(seed, folds):
    cluster, stratum = drawn(seed)
    if len(np.unique(cluster)) < folds:
        return
    for found in cluster_folds(Design(cluster, stratum), len(cluster), folds=folds, seed=seed):
        of_cluster = {(c, f) for c, f in zip(cluster, found, strict=True)}
        assert len(of_cluster) == len(np.unique(cluster))
        for chosen in [np.ones(len(cluster), dtype=bool), *(stratum == one for one in np.unique(stratum))]:
            counts = [len(np.unique(cluster[chosen & (found == fold)])) for fold in range(folds)]
            assert max(counts) - min(counts) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 0.8))
def test_a_half_holds_whole_clusters_and_each_stratum_s_share(seed, fraction):
    cluster, stratum = drawn(seed)
    clusters = len(np.unique(cluster))
    if not 0 < round(fraction * clusters) < clusters:
        return
    found = cluster_half(Design(cluster, stratum), len(cluster), fraction, seed=seed)
    chosen = np.unique(cluster[found])
    assert not set(chosen) & set(cluster[~found])
    assert len(chosen) == round(fraction * clusters)
    for one in np.unique(stratum):
        own = np.unique(cluster[stratum == one])
        assert abs(np.isin(own, chosen).sum() - len(own) * len(chosen) / clusters) < 1


def test_divisions_depend_on_the_seed_and_not_on_the_order_of_images():
    cluster, stratum = drawn(0)
    design, n = Design(cluster, stratum), len(cluster)
    found = cluster_folds(design, n, seed=3)
    assert found.shape == (5, n)
    assert len(np.unique(found, axis=0)) == 5
    np.testing.assert_array_equal(found, cluster_folds(design, n, seed=3))
    assert (found != cluster_folds(design, n, seed=4)).any()
    turned = cluster_folds(Design(cluster[::-1], stratum[::-1]), n, seed=3)
    np.testing.assert_array_equal(turned[:, ::-1], found)
    np.testing.assert_array_equal(cluster_half(design, n, seed=3), cluster_half(design, n, seed=3))
    assert (cluster_half(design, n, seed=3) != cluster_half(design, n, seed=4)).any()


def test_every_cluster_is_drawn_as_often():
    cluster = np.repeat(np.arange(7), 3)
    stratum = np.repeat([0, 0, 0, 0, 1, 1, 2], 3)
    halves = np.stack([cluster_half(Design(cluster, stratum), 21, seed=seed) for seed in range(2000)])
    np.testing.assert_allclose(halves.mean(0), 4 / 7, atol=0.05)


def test_divisions_that_cannot_be_are_refused():
    one = Design(["a"] * 4)
    with pytest.raises(ValueError, match="2 folds need 2 clusters or more; the 4 images lie in 1"):
        cluster_folds(one, 4)
    with pytest.raises(ValueError, match=r"fraction 0\.5 of 1 clusters gives 0 and 1"):
        cluster_half(one, 4)
    with pytest.raises(ValueError, match="folds must be at least 2"):
        cluster_folds(Design(), 4, folds=1)
    with pytest.raises(ValueError, match="every image needs a cluster; 1 of 2"):
        cluster_folds(Design(["a", None]), 2)
