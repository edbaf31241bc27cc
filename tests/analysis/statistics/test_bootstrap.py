import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.analysis import Interval, interval, resampled_means
from mechvit.analysis.statistics import bootstrap as module


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """80 images and three correlated statistics of unlike scales and skew."""
    rng = np.random.default_rng(0)
    shared = rng.exponential(size=80)
    return np.stack([shared, 100 - 5 * shared + rng.normal(size=80), rng.uniform(size=80) < 0.3], axis=1)


def test_resampled_means_match_explicit_resampling(values):
    """Means, deviations, correlations and quantiles of the draws, against rng.choice on the rows themselves."""
    draws = resampled_means(values, resamples=20_000, seed=1)[1:]
    rng = np.random.default_rng(2)
    expected = np.stack([values[rng.choice(80, 80)].mean(0) for _ in range(20_000)])
    deviation = expected.std(0)
    np.testing.assert_array_less(np.abs(draws.mean(0) - expected.mean(0)), 0.05 * deviation)
    np.testing.assert_allclose(draws.std(0), deviation, rtol=0.03)
    np.testing.assert_allclose(draws.std(0), values.std(0) / np.sqrt(80), rtol=0.03)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.corrcoef(expected.T), atol=0.03)
    for column in (0, 1):
        assert scipy.stats.ks_2samp(draws[:, column], expected[:, column]).pvalue > 0.001
    assert abs(np.corrcoef(draws.T)[0, 1]) > 0.5


def test_all_resamples_of_two_images_occur_as_often_as_they_should():
    """Two images: means 0, 1/2 and 1 with probabilities 1/4, 1/2 and 1/4."""
    draws = resampled_means(np.array([[0.0], [1.0]]), resamples=4000, seed=0)[1:, 0]
    found = [(draws == mean).sum() for mean in (0, 0.5, 1)]
    assert sum(found) == 4000
    assert scipy.stats.chisquare(found, [1000, 2000, 1000]).pvalue > 0.001


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 30), st.integers(0, 1000))
def test_laws_hold_for_every_draw(images, resamples, seed):
    column = np.random.default_rng(seed).normal(size=images)
    stacked = np.stack([column, column, 3 * column - 2, np.full(images, 0.1)], axis=1)
    draws = resampled_means(stacked, resamples=resamples, seed=seed)
    assert draws.shape == (resamples + 1, 4)
    np.testing.assert_array_equal(draws[0], stacked.mean(0))
    np.testing.assert_array_equal(draws[:, 0] - draws[:, 1], 0)
    np.testing.assert_allclose(draws[:, 2], 3 * draws[:, 0] - 2, atol=1e-12)
    np.testing.assert_allclose(draws[:, 3], 0.1, rtol=1e-12)
    assert (draws[:, 0] >= column.min() - 1e-12).all()
    assert (draws[:, 0] <= column.max() + 1e-12).all()


def test_resamples_depend_on_seed_and_not_on_columns(values):
    whole = resampled_means(values, resamples=50, seed=4)
    np.testing.assert_allclose(resampled_means(values[:, 1:2], resamples=50, seed=4), whole[:, 1:2], rtol=1e-12)
    assert np.abs(resampled_means(values, resamples=50, seed=5)[1:] - whole[1:]).max() > 0.01
    assert len(np.unique(whole[:, 0])) == 51


def test_draws_do_not_repeat_across_chunks(values, monkeypatch):
    whole = resampled_means(values, resamples=50, seed=4)
    monkeypatch.setattr(module, "_CHUNK", 80 * 7)
    parts = resampled_means(values, resamples=50, seed=4)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_interval_matches_numpy_quantile(level):
    draws = np.random.default_rng(0).gamma(2, size=501)
    found = interval(draws, level)
    assert found.value == draws[0]
    assert found.low == pytest.approx(np.quantile(draws[1:], (1 - level) / 2))
    assert found.high == pytest.approx(np.quantile(draws[1:], (1 + level) / 2))
    moved = draws.copy()
    moved[0] = 1000.0
    assert interval(moved, level)[1:] == found[1:], "the sample's own value is no resample"


def test_interval_leaves_nan_draws_out():
    draws = np.array([1.0, np.nan, 0.0, 2.0, np.nan, 4.0])
    assert interval(draws, 0.5) == (1.0, *np.quantile([0.0, 2.0, 4.0], [0.25, 0.75]))
    assert np.isnan(interval(np.array([np.nan, 1.0, 2.0]))).all()


def test_interval_covers_as_often_as_it_says():
    """90% intervals of normal means over 60 images, 1,000 experiments: a binomial count within 4 deviations.

    The percentile bootstrap's own shortfall at n = 60 (normal quantiles and the biased deviation) is 0.9 points.
    """
    rng = np.random.default_rng(0)
    covered = 0
    for experiment in range(1000):
        draws = resampled_means(rng.normal(2, 3, (60, 1)), resamples=400, seed=experiment)[:, 0]
        found = interval(draws, 0.9)
        covered += found.low <= 2 <= found.high
    shortfall = 0.9 - (2 * scipy.stats.t.cdf(scipy.stats.norm.ppf(0.95) * np.sqrt(59 / 60), 59) - 1)
    assert 0.005 < shortfall < 0.015
    bound = 4 * np.sqrt(1000 * 0.9 * 0.1)
    assert abs(covered - 1000 * (0.9 - shortfall)) < bound


def test_interval_reads_well():
    assert str(Interval(0.123456, -1.0, 12.3456)) == "0.123 [-1, 12.3]"


def test_what_cannot_be_resampled_is_refused():
    with pytest.raises(ValueError, match="at least one image; got none"):
        resampled_means(np.empty((0, 2)), resamples=10)
    with pytest.raises(ValueError, match="resamples must be in"):
        resampled_means(np.ones((3, 1)), resamples=0)
    with pytest.raises(ValueError, match="finite; 2 are not"):
        resampled_means(np.array([[1.0, np.nan], [np.inf, 0.0]]))
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match="level must be in"):
            interval(np.ones(5), level)
