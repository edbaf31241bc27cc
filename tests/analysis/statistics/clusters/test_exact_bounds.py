"""Bounds where all outcomes are equal, against Clopper and Pearson's, and against a search over unequal clusters."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.analysis.statistics.clusters.exact_bounds import chance_of_no_difference, share_that_may_differ


@pytest.mark.parametrize("clusters", [2, 19, 113])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_clusters_of_one_size_have_clopper_and_pearson_s_bound(clusters, level):
    expected = scipy.stats.binomtest(0, clusters).proportion_ci(level, method="exact").high
    assert share_that_may_differ(np.full(clusters, 7.0), level) == pytest.approx(expected, rel=1e-9)


def test_unequal_clusters_match_a_search():
    """The largest sum w p under sum log(1 - p) >= log .025, by scipy's constrained optimiser."""
    sizes = np.array([30.0, 12, 12, 5, 1, 1])
    weights = sizes / sizes.sum()
    found = scipy.optimize.minimize(
        lambda p: -weights @ p,
        np.full(6, 0.1),
        bounds=[(0, 0.9999)] * 6,
        constraints={"type": "ineq", "fun": lambda p: np.log1p(-p).sum() - np.log(0.025)},
    )
    assert found.success
    assert share_that_may_differ(sizes, 0.95) == pytest.approx(-found.fun, rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.floats(0.5, 0.999))
def test_the_chance_undoes_the_bound(sizes, level):
    share = share_that_may_differ(np.array(sizes, dtype=float), level)
    assert 0 < share < 1
    assert chance_of_no_difference(np.array(sizes, dtype=float), share) == pytest.approx((1 - level) / 2, rel=1e-6)
    equal = share_that_may_differ(np.full(len(sizes), 1.0), level)
    assert share >= equal - 1e-12  # unequal clusters tell less


def test_ends():
    sizes = np.array([3.0, 3.0, 3.0])
    assert chance_of_no_difference(sizes, 0.0) == 1
    assert chance_of_no_difference(sizes, 1.0) == 0
