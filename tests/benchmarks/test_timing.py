"""Interleaved timing: its statistics against numpy and scipy, and what it times against planted times."""

from __future__ import annotations

import contextlib
import gc
import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import timing
from timing import Contender, Timing, spread, time_interleaved


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until `clock.now` is moved."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(timing.time, "perf_counter", lambda: Clock.now)
    return Clock


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 20, 75])
def test_spread_matches_numpy_and_scipy(n):
    values = np.random.default_rng(n).gamma(2.0, size=n)
    found = spread(values.tolist())
    expected = np.quantile(values, [0.25, 0.5, 0.75])
    assert [found.lower_quartile, found.median, found.upper_quartile] == pytest.approx(expected, rel=1e-12)
    assert found.n == n
    interval = scipy.stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert (math.nan if found.low is None else found.low) == pytest.approx(interval.low, nan_ok=True)
    assert (math.nan if found.high is None else found.high) == pytest.approx(interval.high, nan_ok=True)


def test_spread_refuses_nothing():
    with pytest.raises(ValueError, match="at least one measurement"):
        spread([])


def test_planted_times_come_back_by_round(clock):
    warmup, *rounds = 9.0, 1.0, 3.0, 0.5, 7.0  # each round's own speed, for both contenders
    drift = iter([speed for speed in (warmup, *rounds) for _ in "ab"])

    def taking(seconds):
        def call():
            clock.now += seconds * speed[0]

        return call

    speed = [0.0]

    @contextlib.contextmanager
    def context():
        speed[0] = next(drift)
        clock.now += 1000.0  # outside the clock
        yield
        clock.now += 1000.0

    found = time_interleaved(
        [Contender(name=name, call=taking(s), context=context) for name, s in (("a", 2.0), ("b", 3.0))],
        rounds=4,
        warmup=0,
        calls=5,
    )
    np.testing.assert_allclose(found.seconds["a"], [2.0, 6.0, 1.0, 14.0])
    np.testing.assert_allclose(found.seconds["b"], [3.0, 9.0, 1.5, 21.0])
    assert found.difference("b", "a", scale=1e3).median == pytest.approx(np.median([1000.0, 3000.0, 500.0, 7000.0]))


def test_a_call_that_does_the_work_several_times_is_divided(clock):
    def taking(seconds):
        clock.now += seconds

    found = time_interleaved(
        [Contender(name="a", call=lambda: taking(2.0)), Contender(name="b", call=lambda: taking(12.0), times=4)],
        rounds=2,
        calls=3,
    )
    assert found.seconds == {"a": (2.0, 2.0), "b": (3.0, 3.0)}


def test_ratio_is_paired_by_round():
    """Contender b is always 1.5 times a; the ratio of the medians would be 15."""
    found = Timing(seconds={"a": (1.0, 2.0, 40.0), "b": (1.5, 3.0, 60.0), "c": (30.0, 2.0, 40.0)})
    assert found.ratio("b", "a") == spread([1.5, 1.5, 1.5])
    assert found.ratio("c", "a") == spread([30.0, 1.0, 1.0])
    assert found.of("b").median == 3.0
    with pytest.raises(ValueError, match="zip"):
        Timing(seconds={"a": (1.0,), "b": (1.0, 2.0)}).ratio("a", "b")


def test_every_contender_stands_before_every_other_equally_often():
    rounds = list(timing.orders("abcd", 20, seed=3))
    assert all(sorted(order) == list("abcd") for order in rounds)
    for x, y in ("ab", "ac", "ad", "bc", "bd", "cd"):
        assert sum(order.index(x) < order.index(y) for order in rounds) == 10
    assert len({tuple(order) for order in rounds}) > 4
    assert all(first == second[::-1] for first, second in list(pairwise(rounds))[::2])


def test_garbage_collection_is_off_while_timing_and_back_afterwards():
    seen = []

    def fails():
        seen.append(gc.isenabled())
        if len(seen) == 3:
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        time_interleaved([Contender(name="a", call=fails)], rounds=9)
    assert seen == [False] * 3
    assert gc.isenabled()


@pytest.mark.parametrize(("names", "rounds", "calls"), [("aa", 1, 1), ("ab", 0, 1), ("ab", 1, 0)])
def test_bad_settings_are_refused(names, rounds, calls):
    with pytest.raises(ValueError, match="names of their own"):
        time_interleaved([Contender(name=name, call=int) for name in names], rounds=rounds, calls=calls)
