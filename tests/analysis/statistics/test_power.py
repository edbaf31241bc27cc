"""Chances of verdicts, against statsmodels, against draws, and against the intervals that they are for."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.stats

from mechvit.analysis.statistics import chance_above, chance_within, clusters_needed


@pytest.mark.parametrize(("effect", "n"), [(0.0, 5), (0.3, 19), (0.8, 19), (-0.4, 30)])
def test_an_interval_above_0_has_the_power_of_a_one_sided_test(effect, n):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        power = pytest.importorskip("statsmodels.stats.power")
    expected = power.TTestPower().power(effect, n, 0.025, alternative="larger")
    assert chance_above(effect, n**-0.5, n - 1) == pytest.approx(expected, rel=1e-8)
    assert chance_above(effect + 7, n**-0.5, n - 1, threshold=7.0) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("effect", "margin", "df"), [(0.0, 3.0, 4), (0.5, 2.5, 18), (2.5, 2.5, 18), (0.0, 1.0, 3)])
def test_an_interval_within_a_margin_matches_draws(effect, margin, df):
    rng = np.random.default_rng(0)
    estimate = effect + rng.normal(size=400_000)
    reach = scipy.stats.t.ppf(0.975, df) * np.sqrt(rng.chisquare(df, size=400_000) / df)
    expected = ((estimate - reach > -margin) & (estimate + reach < margin)).mean()
    assert chance_within(effect, 1.0, df, margin=margin) == pytest.approx(expected, abs=0.003)


def test_with_many_degrees_of_freedom_a_margin_has_the_normal_formula():
    room = 3 - scipy.stats.norm.ppf(0.975)
    expected = scipy.stats.norm.cdf(room - 0.4) - scipy.stats.norm.cdf(-room - 0.4)
    assert chance_within(0.4, 1.0, 1e7, margin=3.0) == pytest.approx(expected, rel=1e-4)
    assert chance_within(0.4, 1.0, 1e7, margin=1.0) < 1e-12  # no interval is as short
    assert chance_within(0.0, 1.0, 5, margin=0.0) == 0


def test_clusters_for_80_percent_match_statsmodels():
    """A paired t test of single images at a standardised effect."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        power = pytest.importorskip("statsmodels.stats.power")
    for effect in (0.2, 0.5, 1.2):
        expected = power.TTestPower().solve_power(effect, None, 0.025, 0.8, "larger")
        found = clusters_needed(lambda error, df, effect=effect: chance_above(effect, error, df), 1 / 10, 100)
        assert found == np.ceil(expected)


def test_clusters_needed_is_the_first_that_is_enough():
    def chance(error, df):
        return chance_within(0.1, error, df, margin=0.5)

    found = clusters_needed(chance, 0.3, 19, strata=5)
    assert chance(0.3 * (19 / found) ** 0.5, found - 5) >= 0.8
    assert chance(0.3 * (19 / (found - 1)) ** 0.5, found - 6) < 0.8
    assert clusters_needed(lambda error, df: 1.0, 0.3, 19, strata=5) == 10  # two a stratum


def test_a_rule_that_no_number_wins_needs_infinitely_many():
    assert clusters_needed(lambda error, df: chance_above(0.0, error, df), 1.0, 19) == np.inf
    assert clusters_needed(lambda error, df: chance_above(1.0, error, df, threshold=1.0), 1.0, 19) == np.inf


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"error": 0.0}, "error must be finite and above 0"),
        ({"df": 0.0}, "df must be finite and above 0"),
        ({"effect": np.nan}, "effect must be finite"),
        ({"level": 1.0}, r"level must be in \(0, 1\)"),
    ],
)
def test_settings_outside_their_ranges_are_refused(wrong, line):
    given = {"effect": 1.0, "error": 1.0, "df": 5.0}
    with pytest.raises(ValueError, match=line):
        chance_above(**given | wrong)
    with pytest.raises(ValueError, match=line):
        chance_within(**given | wrong, margin=1.0)
