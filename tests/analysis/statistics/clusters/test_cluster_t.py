"""Means, contrasts, ratios and jackknifed statistics of clustered images, against references that are not ours."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mechvit.analysis.statistics import (
    Design,
    cluster_jackknife,
    cluster_ratio,
    cluster_t,
    jackknifed,
    linearised_means,
    linearised_ratios,
)


@pytest.fixture(scope="module")
def photographs():
    """300 images in 40 unequal clusters of 8 strata: two statistics that differ between clusters."""
    rng = np.random.default_rng(0)
    stratum_of = np.repeat(np.arange(8), 5)
    cluster = np.sort(np.concatenate([np.arange(40), rng.integers(40, size=260)]))
    values = rng.normal(size=(300, 2)) + 2 * rng.normal(size=(40, 2))[cluster] + stratum_of[cluster][:, None]
    return values, cluster, stratum_of[cluster]


def test_single_images_give_student_s_interval():
    values = np.random.default_rng(1).exponential(size=(30, 2))
    found = cluster_t(values, Design(), against=0.8, level=0.9)
    for place in range(2):
        test = scipy.stats.ttest_1samp(values[:, place], 0.8)
        low, high = test.confidence_interval(0.9)
        np.testing.assert_allclose(found[place], (values[:, place].mean(), low, high), rtol=1e-12)
        assert found.p[place] == pytest.approx(test.pvalue, rel=1e-10)
    assert found.df.tolist() == [29, 29]


def test_clusters_of_one_size_give_student_s_interval_of_their_means():
    values = np.random.default_rng(1).normal(size=(12, 5)) + np.arange(12)[:, None] % 3
    found = cluster_t(values.reshape(60, 1), Design(np.repeat(np.arange(12), 5)))
    low, high = scipy.stats.ttest_1samp(values.mean(1), 0).confidence_interval(0.95)
    np.testing.assert_allclose(found[0], (values.mean(), low, high), rtol=1e-12)


def test_unequal_clusters_match_statsmodels(photographs):
    """A regression on a constant with cluster-robust errors: its correction is G / (G - 1)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linear = pytest.importorskip("statsmodels.regression.linear_model")
    values, cluster, _ = photographs
    found = cluster_t(values, Design(cluster))
    for place in range(2):
        fit = linear.OLS(values[:, place], np.ones(300)).fit(
            cov_type="cluster", cov_kwds={"groups": cluster}, use_t=True
        )
        assert found.error[place] == pytest.approx(fit.bse[0], rel=1e-10)
        np.testing.assert_allclose([found.low[place], found.high[place]], fit.conf_int()[0], rtol=1e-10)
        assert found.p[place] == pytest.approx(fit.pvalues[0], rel=1e-8)


def test_strata_match_a_loop(photographs):
    values, cluster, stratum = photographs
    found = cluster_t(values, Design(cluster, stratum))
    for place in range(2):
        variance = 0.0
        for one in range(8):
            own = [
                (values[cluster == c, place] - values[:, place].mean()).sum() / 300
                for c in np.unique(cluster[stratum == one])
            ]
            variance += len(own) * np.var(own, ddof=1)
        assert found.error[place] == pytest.approx(variance**0.5, rel=1e-12)
    assert found.df.tolist() == [32, 32]
    assert (found.error < cluster_t(values, Design(cluster)).error).all()  # the strata differ
    assert (found.error > 2 * cluster_t(values, Design(stratum=stratum)).error).all()  # images of a cluster do not


def test_contrasts_are_paired(photographs):
    values, cluster, stratum = photographs
    design = Design(cluster, stratum)
    found = linearised_means(values, design).contrasts(np.array([[1.0, -1.0], [0.5, 0.5]]))
    direct = linearised_means(np.stack([values[:, 0] - values[:, 1], values.mean(1)], axis=1), design)
    np.testing.assert_allclose(found.value, direct.value, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, direct.covariance, rtol=1e-10)
    assert found.df.tolist() == [32, 32]
    with pytest.raises(ValueError, match="a contrast weighs 2 statistics; got 3 weights"):
        direct.contrasts(np.ones((1, 3)))


def test_means_of_some_images_match_statsmodels_difference_of_two_groups(photographs):
    """Each group's own mean, and their unpaired difference: a regression on two indicators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linear = pytest.importorskip("statsmodels.regression.linear_model")
    values, cluster, _ = photographs
    first = np.random.default_rng(3).random(300) < 0.4
    found = linearised_means(
        np.stack([values[:, 0]] * 2, axis=1), Design(cluster), where=np.stack([first, ~first], axis=1)
    )
    columns = np.stack([first, ~first], axis=1).astype(float)
    fit = linear.OLS(values[:, 0], columns).fit(cov_type="cluster", cov_kwds={"groups": cluster})
    np.testing.assert_allclose(found.value, fit.params, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, fit.cov_params() * 298 / 299, rtol=1e-10)
    assert found.clusters.tolist() == [len(np.unique(cluster[first])), len(np.unique(cluster[~first]))]
    assert found.contrasts(np.array([[1.0, -1.0]])).df.tolist() == [39]


def test_images_that_do_not_count_may_be_missing(photographs):
    values, cluster, stratum = photographs
    where = np.ones((300, 1), dtype=bool)
    where[cluster == 3] = False
    holed = np.where(where, values[:, :1], np.nan)
    found = cluster_t(holed, Design(cluster, stratum), where=where)
    assert found.value[0] == pytest.approx(values[cluster != 3, 0].mean())
    assert (found.clusters[0], found.df[0]) == (39, 31)
    with pytest.raises(ValueError, match="values must be finite; "):
        cluster_t(holed, Design(cluster, stratum))
    nothing = cluster_t(holed, Design(cluster, stratum), where=np.zeros((300, 1), dtype=bool), bounds=(0.0, 1.0))
    assert np.isnan([*nothing[0], nothing.p[0]]).all()
    assert nothing.method == ("none",)


def test_ratios_match_the_textbook(photographs):
    """Cochran, Sampling Techniques (1977), 6.4: v(R) = sum (y - R x)^2 / (n (n - 1) mean(x)^2)."""
    rng = np.random.default_rng(2)
    x = rng.uniform(1, 2, size=(50, 1))
    y = 0.7 * x + 0.1 * rng.normal(size=(50, 1))
    found = cluster_ratio(y, x, Design())
    ratio = y.sum() / x.sum()
    assert found.value[0] == pytest.approx(ratio)
    assert found.error[0] == pytest.approx((np.square(y - ratio * x).sum() / (50 * 49)) ** 0.5 / x.mean())
    assert np.isnan(cluster_ratio(y, np.zeros_like(x), Design()).value[0])


def test_the_jackknife_of_a_mean_is_its_linearisation(photographs):
    values, cluster, stratum = photographs
    for design in (Design(cluster, stratum), Design(cluster), Design()):
        exact, found = linearised_means(values, design), jackknifed(lambda rows: rows.mean(0), values, design)
        np.testing.assert_allclose(found.influence, exact.influence, atol=1e-13)
        np.testing.assert_allclose(found.variance, exact.variance, rtol=1e-9)


def test_the_jackknife_of_single_images_is_scipy_s_formula():
    """(n - 1) / n sum (T_i - mean)^2 for a Wasserstein distance, a correlation and a median-like statistic."""
    values = np.random.default_rng(4).normal(size=(25, 2)) @ np.array([[1.0, 0.5], [0, 1.0]])

    def statistics(rows):
        return [
            np.corrcoef(rows.T)[0, 1],
            scipy.stats.wasserstein_distance(rows[:, 0], rows[:, 1] + 1),
            scipy.stats.trim_mean(rows[:, 0], 0.1),
        ]

    left_out = np.array([statistics(np.delete(values, place, axis=0)) for place in range(25)])
    expected = np.sqrt(24 / 25 * np.square(left_out - left_out.mean(0)).sum(0))
    np.testing.assert_allclose(cluster_jackknife(statistics, values, Design()).error, expected, rtol=1e-9)


def test_calibration_errors_cka_and_distances_have_the_stratified_jackknife_s_formula():
    """Clusters of one size: sum over strata of n / (n - 1) ((C - 1) / C)^2 sum (T_c - mean of the stratum)^2."""
    cluster, stratum = np.repeat(np.arange(12), 10), np.repeat(np.arange(3), 40)
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(120, 6)) + rng.normal(size=(12, 6))[cluster]
    confidence, right = rng.uniform(0.5, 1, size=(120, 1)), rng.uniform(size=(120, 1)) < 0.6
    rows = np.hstack([rows, confidence, right])

    def statistics(rows):
        x, y = (half - half.mean(0) for half in (rows[:, :3], rows[:, 3:6]))
        cka = np.square(x.T @ y).sum() / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
        bins = np.digitize(rows[:, 6], np.linspace(0, 1, 16))
        ece = sum(abs((rows[bins == b, 6] - rows[bins == b, 7]).sum()) for b in np.unique(bins)) / len(rows)
        return [cka, ece, scipy.stats.ks_2samp(rows[:, 0], rows[:, 3]).statistic]

    left_out = np.array([statistics(rows[cluster != c]) for c in range(12)]).reshape(3, 4, 3)
    spread = np.square(left_out - left_out.mean(1, keepdims=True)).sum((0, 1))
    found = cluster_jackknife(statistics, rows, Design(cluster, stratum))
    np.testing.assert_allclose(found.error, np.sqrt(4 / 3 * (11 / 12) ** 2 * spread), rtol=1e-9)
    np.testing.assert_allclose(found.value, statistics(rows), rtol=1e-12)
    assert found.df.tolist() == [9, 9, 9]


def test_a_jackknifed_ratio_is_near_its_linearisation(photographs):
    values, cluster, stratum = photographs
    frame = pd.DataFrame({"y": values[:, 0] + 20, "x": np.abs(values[:, 1]) + 5})
    design = Design(cluster, stratum)
    jackknife = cluster_jackknife(lambda rows: rows["y"].sum() / rows["x"].sum(), frame, design)
    linear = linearised_ratios(frame[["y"]].to_numpy(), frame[["x"]].to_numpy(), design)
    assert jackknife.error[0] == pytest.approx(linear.variance[0] ** 0.5, rel=0.05)


def test_a_statistic_that_is_no_number_somewhere_is_refused():
    values = np.arange(6.0)[:, None]
    with pytest.raises(ValueError, match=r"finite for all images and without each cluster; it is \[nan\] for 5 of"):
        cluster_jackknife(lambda rows: rows.mean() if len(rows) == 6 else np.nan, values, Design())
    with pytest.raises(ValueError, match=r"as many numbers for fewer images; got an array of shape \(5,\)"):
        cluster_jackknife(lambda rows: rows[:, 0], values, Design())


def test_equal_outcomes_have_exact_bounds_that_count_clusters():
    design = Design(np.repeat(np.arange(19), 40))
    right, same = np.ones((760, 1), dtype=bool), np.zeros((760, 1))
    found = cluster_t(right, design, bounds=(0.0, 1.0))
    exact = scipy.stats.binomtest(19, 19).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose(found[0], (1, exact.low, 1), atol=1e-9)
    assert found.method == ("exact",)
    difference = cluster_t(same, design, bounds=(-1.0, 1.0))
    np.testing.assert_allclose(difference[0], (0, -(1 - exact.low), 1 - exact.low), atol=1e-9)
    assert difference.p[0] == 1
    assert cluster_t(right, design, bounds=(0.0, 1.0), against=exact.low).p[0] == pytest.approx(0.05)
    assert cluster_t(right, design, bounds=(0.0, 1.0), against=0.0).p[0] == 0
    unbounded = cluster_t(same, design)
    assert unbounded.method == ("none",)
    assert np.isnan([unbounded.low[0], unbounded.high[0], unbounded.p[0]]).all()


def test_equal_numbers_that_round_differently_have_no_spread():
    values = np.full((700, 1), 0.1)
    assert cluster_t(values, Design(np.repeat(np.arange(7), 100))).method == ("none",)
    assert cluster_t(values, Design(np.arange(700) % 7), bounds=(0.0, 1.0)).method == ("exact",)


def test_outcomes_outside_their_bounds_are_refused():
    with pytest.raises(ValueError, match=r"within \(0.0, 1.0\); 1 do not, as 2"):
        cluster_t(np.array([[0.0], [2.0], [1.0]]), Design(), bounds=(0.0, 1.0))
    with pytest.raises(ValueError, match="smallest and largest value"):
        cluster_t(np.zeros((3, 1)), Design(), bounds=(1.0, 0.0))
    with pytest.raises(ValueError, match="lies between 0 and 1; got 95"):
        cluster_t(np.arange(3.0)[:, None], Design(), level=95.0)


def test_estimates_are_tables_and_each_has_its_level(photographs):
    values, cluster, stratum = photographs
    found = cluster_t(values, Design(cluster, stratum), level=np.array([0.9, 0.99]))
    for place, level in enumerate((0.9, 0.99)):
        alone = cluster_t(values, Design(cluster, stratum), level=level)
        assert found[place] == alone[place]
    frame = found.to_frame(model="tuned", layer=[0, 1])
    assert list(frame) == (
        ["model", "layer", "value", "low", "high", "error", "df", "p", "level", "method", "clusters", "covers"]
    )
    assert frame["covers"].unique().tolist() == ["images, given these weights"]
    assert "\n" not in repr(found)
