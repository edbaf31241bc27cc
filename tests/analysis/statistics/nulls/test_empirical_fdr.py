"""False discoveries by null statistics, against the definition written out, and in simulated latents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit.analysis.statistics import empirical_fdr


def by_definition(statistic, nulls):
    """The smallest, over the thresholds that a row passes, of expected false rows over rows called."""
    pooled = nulls.ravel()
    rates = {
        t: len(statistic) * (1 + (pooled >= t).sum()) / (1 + pooled.size) / (statistic >= t).sum() for t in statistic
    }
    return [min(1.0, *(rate for t, rate in rates.items() if t <= s)) for s in statistic]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 10_000), st.booleans())
def test_q_values_match_their_definition(rows, n, seed, ties):
    rng = np.random.default_rng(seed)
    statistic, nulls = rng.normal(size=rows) + 1, rng.normal(size=(n, rows))
    if ties:
        statistic, nulls = np.round(statistic), np.round(nulls)
    found = empirical_fdr(statistic, nulls)
    np.testing.assert_allclose(found, by_definition(statistic, nulls), rtol=1e-12)
    order = np.argsort(statistic)
    assert (np.diff(found[order]) <= 1e-12).all()
    assert ((found > 0) & (found <= 1)).all()


def test_one_row_beyond_all_others_is_no_more_certain_than_the_nulls_allow():
    rng = np.random.default_rng(0)
    statistic = np.append(rng.uniform(size=99), 50.0)
    assert empirical_fdr(statistic, rng.uniform(size=(5, 100)))[-1] == pytest.approx(100 / 501)
    assert empirical_fdr(statistic, rng.uniform(size=(40, 100)))[-1] == pytest.approx(100 / 4001)


def test_the_rate_holds_and_moved_latents_are_found():
    rng = np.random.default_rng(1)
    moved = np.arange(500) < 50
    shares, found = [], []
    for _ in range(60):
        called = empirical_fdr(np.abs(rng.normal(size=500) + 4 * moved), np.abs(rng.normal(size=(5, 500)))) < 0.1
        shares.append((called & ~moved).sum() / max(called.sum(), 1))
        found.append((called & moved).sum() / 50)
    assert 0.03 < np.mean(shares) < 0.11
    assert np.mean(found) > 0.8


def test_statistics_without_their_nulls_are_refused():
    for nulls in (np.zeros((0, 3)), np.zeros((2, 4))):
        with pytest.raises(ValueError, match="there is one null or more; got an array of"):
            empirical_fdr(np.zeros(3), nulls)
    with pytest.raises(ValueError, match="must be finite"):
        empirical_fdr(np.array([np.nan]), np.zeros((2, 1)))
