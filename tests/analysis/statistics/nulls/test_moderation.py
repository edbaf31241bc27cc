"""Moderated variances, against the model that they are for, and against moments matched by a search."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

from mechvit.analysis.statistics import moderated_variances
from mechvit.analysis.statistics.nulls.moderation import inverse_trigamma


def drawn(rows, df, prior_df, prior, seed=0):
    """Variances whose truths are scaled inverse chi-squared."""
    rng = np.random.default_rng(seed)
    truth = prior * prior_df / rng.chisquare(prior_df, rows) if np.isfinite(prior_df) else np.full(rows, prior)
    return truth, truth * rng.chisquare(df, rows) / df


@pytest.mark.parametrize("value", [1e-9, 1e-4, 0.03, 0.5, 1.0, 1.6449340668482264, 40.0, 1e5, 1e9])
def test_the_trigamma_function_is_inverted(value):
    assert scipy.special.polygamma(1, inverse_trigamma(value)) == pytest.approx(value, rel=1e-5)
    assert inverse_trigamma(np.pi**2 / 6) == pytest.approx(1, rel=1e-9)
    assert inverse_trigamma(np.pi**2 / 2) == pytest.approx(0.5, rel=1e-9)


def test_the_prior_has_the_moments_of_the_log_variances():
    """The log of an F variable of (d, d0) degrees of freedom, by scipy's numerical integration, has the mean and the
    variance of log s^2 - log s0^2.
    """
    _, variance = drawn(60, 4, 6.0, 2.5)
    found = moderated_variances(variance, 4)

    def moments(log_prior_df, log_prior):
        law = scipy.stats.f(4, np.exp(log_prior_df))
        mean = law.expect(np.log, epsabs=1e-10)
        return mean + log_prior, law.expect(lambda x: (np.log(x) - mean) ** 2, epsabs=1e-10)

    target = np.log(variance).mean(), np.log(variance).var(ddof=1)
    solution = scipy.optimize.fsolve(lambda x: np.subtract(moments(*x), target), [np.log(5), 0.0], xtol=1e-10)
    assert found.prior_df == pytest.approx(np.exp(solution[0]), rel=1e-4)
    assert found.prior_variance == pytest.approx(np.exp(solution[1]), rel=1e-4)
    weighed = (found.prior_df * found.prior_variance + 4 * variance) / (found.prior_df + 4)
    np.testing.assert_allclose(found.variance, weighed, rtol=1e-12)
    assert found.df == pytest.approx(found.prior_df + 4)


@pytest.mark.parametrize(("prior_df", "prior"), [(4.0, 1.0), (20.0, 0.01)])
def test_a_known_prior_is_found_in_many_rows(prior_df, prior):
    truth, variance = drawn(40_000, 3, prior_df, prior)
    found = moderated_variances(variance, 3)
    assert found.prior_df == pytest.approx(prior_df, rel=0.1)
    assert found.prior_variance == pytest.approx(prior, rel=0.02)
    assert np.square(np.log(found.variance / truth)).mean() < 0.5 * np.square(np.log(variance / truth)).mean()


def test_rows_that_differ_by_chance_alone_share_one_variance():
    for seed in range(20):
        _, variance = drawn(12, 4, np.inf, 3.0, seed)
        found = moderated_variances(variance, 4)
        if np.isinf(found.prior_df):
            np.testing.assert_allclose(found.variance, variance.mean(), rtol=1e-12)
            assert found.df == 48
            return
    pytest.fail("no infinite prior in twenty tries")


def test_degrees_of_freedom_are_no_more_than_all_rows_have():
    found = moderated_variances(np.array([1.0, 1.7, 0.9]), 2)
    assert found.df == 6 < found.prior_df + 2


def test_rows_of_no_variance_are_drawn_towards_the_others():
    positive = np.array([0.5, 3.0, 1.0, 40.0, 0.02])
    found, others = moderated_variances(np.append(positive, 0.0), 2), moderated_variances(positive, 2)
    assert found.prior_df == others.prior_df
    np.testing.assert_array_equal(found.variance[:5], others.variance)
    expected = others.prior_df * others.prior_variance / (others.prior_df + 2)
    assert found.variance[5] == pytest.approx(expected) != 0


@pytest.mark.parametrize("variance", [[2.0], [0.0, 2.0], [0.0, 0.0]])
def test_a_row_alone_stays_as_it_is(variance):
    found = moderated_variances(np.array(variance), 3)
    assert found.variance.tolist() == variance
    assert (found.df, found.prior_df) == (3, 0)


@pytest.mark.parametrize(
    ("variance", "df", "line"),
    [
        ([1.0, -1.0], 2, "finite and at least 0"),
        ([1.0, np.nan], 2, "finite and at least 0"),
        ([1.0, 2.0], 0, "one degree of freedom or more; got 0"),
    ],
)
def test_what_is_no_variance_is_refused(variance, df, line):
    with pytest.raises(ValueError, match=line):
        moderated_variances(np.array(variance), df)
