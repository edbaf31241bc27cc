"""Fieller's intervals: the test that they invert, and ratios that are not bounded."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from mechvit.analysis.statistics import Design, cluster_ratio, fieller

CLUSTER, STRATUM = np.repeat(np.arange(15), 4), np.repeat(np.arange(3), 20)
DESIGN = Design(CLUSTER, STRATUM)


def drawn(mean, seed=0):
    rng = np.random.default_rng(seed)
    x = mean + rng.normal(size=(60, 1)) + rng.normal(size=(15, 1))[CLUSTER]
    return 0.5 * x + 0.5 * rng.normal(size=(60, 1)), x


def p_of(ratio, y, x):
    """The p-value of "the mean of y - ratio x is 0", by cluster means within strata (all clusters have one size)."""
    means = (y - ratio * x).reshape(15, 4).mean(1)
    within = means - means.reshape(3, 5).mean(1).repeat(5)
    error = (np.square(within).sum() / 12 / 15) ** 0.5
    return 2 * scipy.stats.t.sf(abs(means.mean()) / error, 12)


def test_a_bounded_interval_holds_the_ratios_that_are_not_rejected():
    y, x = drawn(3.0)
    found = fieller(y, x, DESIGN)
    assert found.kind == ("bounded",)
    assert found.value[0] == pytest.approx(y.sum() / x.sum())
    assert found.low[0] < found.value[0] < found.high[0]
    for end in (found.low[0], found.high[0]):
        assert p_of(end, y, x) == pytest.approx(0.05, rel=1e-8)
    plain = cluster_ratio(y, x, DESIGN)
    assert (found.low[0], found.high[0]) == pytest.approx((plain.low[0], plain.high[0]), abs=0.03)


def test_where_the_denominator_may_be_0_a_gap_or_nothing_is_excluded():
    kinds = set()
    for seed in range(60):
        y, x = drawn(0.3, seed)
        y = y + 1.5 * (seed % 2)
        found = fieller(y, x, DESIGN)
        kinds |= set(found.kind)
        (kind,), probes = found.kind, np.tan(np.linspace(-1.57, 1.57, 41))
        accepted = np.array([p_of(ratio, y, x) >= 0.05 for ratio in probes])
        if kind == "unbounded":
            inside = np.ones(41, dtype=bool)
        elif kind == "bounded":
            inside = (probes >= found.low[0]) & (probes <= found.high[0])
        else:
            inside = (probes <= found.gap_low[0]) | (probes >= found.gap_high[0])
        np.testing.assert_array_equal(accepted, inside)
        assert np.isfinite(found.low[0]) == (kind == "bounded")
        assert np.isnan(found.gap_low[0]) == (kind != "all but an interval")
    assert kinds == {"bounded", "all but an interval", "unbounded"}


def test_no_spread_sets_no_limit():
    y, x = drawn(3.0)
    for pair in ((np.zeros_like(y), x), (y, np.ones_like(x))):
        found = fieller(*pair, DESIGN)
        assert found.kind == ("none",)
        assert np.isnan([found.low[0], found.high[0]]).all()


def test_several_ratios_are_a_table_and_unlike_arrays_are_refused():
    (y, x), (v, w) = drawn(3.0), drawn(0.1, 3)
    found = fieller(np.hstack([y, v]), np.hstack([x, w]), DESIGN)
    frame = found.to_frame(layer=[0, 1])
    assert list(frame) == ["layer", "value", "low", "high", "kind", "gap_low", "gap_high", "df", "covers"]
    assert frame["low"].iloc[0] == pytest.approx(fieller(y, x, DESIGN).low[0])
    assert repr(found).startswith("FiellerIntervals(1 of 2 bounded")
    with pytest.raises(ValueError, match=r"has its denominator; got \(60, 1\) and \(60, 2\)"):
        fieller(y, np.hstack([x, w]), DESIGN)
