"""Several tests at once, against statsmodels and by simulation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.stats

from mechvit.analysis.statistics import Design, benjamini_hochberg, cluster_t, holm, selected_level

PUBLISHED = np.array(
    [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528, 0.759, 1.0]
)
"""The example of Benjamini and Hochberg (1995): four are called at 5%, and by Hochberg's and Holm's rule three."""


def test_the_published_example():
    assert (benjamini_hochberg(PUBLISHED) <= 0.05).sum() == 4
    assert (holm(PUBLISHED) <= 0.05).sum() == 3


@pytest.mark.parametrize("seed", range(4))
def test_adjusted_values_match_statsmodels(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.round(np.random.default_rng(seed).beta(0.5, 1, size=30), 3)
    for ours, theirs in ((benjamini_hochberg, "fdr_bh"), (holm, "holm")):
        np.testing.assert_allclose(ours(p), multitest.multipletests(p, method=theirs)[1], rtol=1e-12)


def test_what_has_no_p_value_is_no_test():
    holed = np.insert(PUBLISHED, [0, 7], np.nan)
    for adjust in (benjamini_hochberg, holm):
        found = adjust(holed)
        assert np.isnan(found[[0, 8]]).all()
        np.testing.assert_array_equal(found[~np.isnan(holed)], adjust(PUBLISHED))
        assert np.isnan(adjust(np.full(2, np.nan))).all()
    called, level = selected_level(holed)
    assert called.sum() == 4
    assert level == pytest.approx(1 - 4 * 0.05 / 15)


def test_an_interval_at_the_selected_level_excludes_0_exactly_where_its_test_is_called():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.normal(size=(12, 40)) + np.linspace(0, 1.5, 40)
        p = cluster_t(values, Design()).p
        called, level = selected_level(p)
        again = cluster_t(values, Design(), level=level)
        np.testing.assert_array_equal((again.low > 0) | (again.high < 0), called)
    assert 0 < called.sum() < 40


def test_selected_intervals_miss_as_seldom_as_promised():
    """Of called effects, plain 95% intervals miss far more than 5%; those at the selected level do not."""
    rng = np.random.default_rng(1)
    missed, plain = [], []
    effects = np.where(np.arange(200) < 20, 2.5, 0.0)
    for _ in range(200):
        estimates = effects + rng.normal(size=200)
        called, level = selected_level(2 * scipy.stats.norm.sf(np.abs(estimates)))
        for reached, at in ((missed, level), (plain, 0.95)):
            wrong = np.abs(estimates - effects) > scipy.stats.norm.ppf((1 + at) / 2)
            reached.append((wrong & called).sum() / max(called.sum(), 1))
    assert np.mean(plain) > 0.06
    assert np.mean(missed) < 0.05


def test_none_called_has_the_level_of_one():
    called, level = selected_level(np.array([0.5, 0.6]))
    assert not called.any()
    assert level == 0.975


def test_what_is_no_p_value_is_refused():
    for function in (benjamini_hochberg, holm, selected_level):
        with pytest.raises(ValueError, match="lie between 0 and 1; 1 of 2 do not"):
            function(np.array([0.5, 1.2]))
    with pytest.raises(ValueError, match="needs a p-value; got none"):
        selected_level(np.array([np.nan]))
    with pytest.raises(ValueError, match="rate must be in"):
        selected_level(PUBLISHED, rate=0.0)
