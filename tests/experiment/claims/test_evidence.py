"""Verdicts from intervals, and what the evidence makes of a run's tables."""

from __future__ import annotations

import numpy as np
import pytest
from planted import BLUR, change, plant_tables

from mechvit.analysis import Interval, all_above, all_within
from mechvit.experiment import Rules
from mechvit.experiment.claims.evidence import ClaimWords, Evidence, Measurement, get, unmeasured

YES, NO, OPEN = "replicates", "does not replicate", "inconclusive"
WORDS = ClaimWords("some_id", "Some claim", "section 1", "What is measured", "points")


def between(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high)


NAN = Interval(np.nan, np.nan, np.nan)


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        ([(0.1, 2)], YES),
        ([(0.1, 0.2)], YES),
        ([(0.1, 2), (3, 4)], YES),
        ([(0, 2)], OPEN),
        ([(-1, 2)], OPEN),
        ([(-1, 0.9)], NO),
        ([(-3, -2)], NO),
        ([(0, 0)], NO),
        ([(0.1, 2), (-1, 2)], OPEN),
        ([(-1, 2), (-3, -2)], NO),
    ],
)
def test_an_effect_is_judged_by_its_rule(effects, verdict):
    assert all_above([between(*e) for e in effects], 1.0) == verdict


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        ([(-0.9, 0.9)], YES),
        ([(0, 0), (0.2, 0.9)], YES),
        ([(-0.9, 1.0)], OPEN),
        ([(-2, 2)], OPEN),
        ([(0.9, 1.1)], OPEN),
        ([(1.1, 2)], NO),
        ([(-2, -1.1)], NO),
        ([(0, 0), (1.1, 2)], NO),
    ],
)
def test_no_effect_is_judged_by_its_rule(effects, verdict):
    assert all_within([between(*e) for e in effects], 1.0) == verdict


def test_what_is_not_measured_is_inconclusive():
    assert all_above([NAN], 1.0) == OPEN
    assert all_above([between(1, 2), NAN], 1.0) == OPEN
    assert all_within([NAN], 1.0) == OPEN


@pytest.mark.parametrize("judge", [all_above, all_within])
def test_verdicts_need_an_interval_and_a_margin(judge):
    with pytest.raises(ValueError, match="at least one interval"):
        judge([], 1.0)
    with pytest.raises(ValueError, match="must not be negative; got -1"):
        judge([between(0, 1)], -1.0)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    levels = {"gaussian_noise": (4, 1), "gaussian_blur": (10, 2)}
    blur = change(BLUR, gains=BLUR.gains[:2])
    return Evidence(plant_tables(blur, blur, levels=levels), Rules(resamples=100))


def test_families_are_in_order_of_level_as_a_number(evidence):
    found = {family: [c.level for c in levels] for family, levels in evidence.families.items()}
    assert found == {"gaussian_blur": [2, 10], "gaussian_noise": [1, 4]}


def test_layers_are_in_order_as_numbers(evidence):
    draws = {("m", "c", layer): np.full(3, float(layer)) for layer in (10, 2, 0, 1, 11)}
    assert evidence.by_layer(draws, "m", "c").tolist() == [[0, 1, 2, 10, 11]] * 3
    with pytest.raises(ValueError, match="lack the model 'other' under 'c'"):
        evidence.by_layer(draws, "other", "c")


def test_the_smallest_effect_decides(evidence):
    parts = {"large": np.array([5.0, 4.0, 6.0]), "small": np.array([2.0, 1.0, 3.0])}
    row = evidence.effect(WORDS, parts, 1.0)
    assert [part.label for part in row.parts] == ["large", "small"]
    assert (row.parts[0].value, row.deciding.label, row.deciding.value, row.verdict) == (5.0, "small", 2.0, YES)
    assert row.deciding.low == pytest.approx(1.05, abs=1e-15)
    assert row.deciding.high == pytest.approx(2.95, abs=1e-15)
    assert (row.kind, row.threshold, row.unit, row.what) == ("effect", 1.0, "points", "What is measured")
    assert "below 1 (points)" in row.rule


@pytest.mark.parametrize("order", [1, -1])
def test_an_unmeasured_part_decides_in_whatever_order(evidence, order):
    parts = dict(list({"known": np.array([2.0, 1.0, 3.0]), "unknown": np.full(3, np.nan)}.items())[::order])
    row = evidence.effect(WORDS, parts, 1.0)
    assert (row.deciding, row.verdict) == (Measurement("unknown"), OPEN)
    assert [part.value for part in row.parts if part.label == "known"] == [2.0]


def test_the_largest_deviation_decides(evidence):
    found = {"up": Interval(1.0, 0.5, 1.5), "down": Interval(-2.0, -2.5, -1.5), "none": Interval(0.0, -0.1, 0.1)}
    row = evidence.no_effect(WORDS, found, 3.0)
    assert (row.deciding, row.verdict) == (Measurement("down", -2.0, -2.5, -1.5), YES)
    assert (row.kind, row.threshold) == ("no effect", 3.0)
    assert evidence.no_effect(WORDS, found, 1.4).verdict == NO
    assert evidence.no_effect(WORDS, found, 2.0).verdict == OPEN
    beside = evidence.no_effect(WORDS, found, 1.0, on=["none"])
    assert (beside.verdict, beside.decides, len(beside.parts)) == (YES, 2, 3)


def test_gains_are_paired_draws(evidence):
    gain = evidence.gain("gaussian_blur_10", "gaussian_blur_10", "accuracy")
    assert len(gain) == 101
    apart = [
        get(evidence.performance, m, "gaussian_blur_10", "accuracy")[1:].std() for m in ("base", "gaussian_blur_10")
    ]
    assert gain[1:].std() < 0.9 * np.hypot(*apart)
    assert (evidence.gain("base", "clean", "top5") == 0).all()


def test_unmeasured_rows_say_why():
    row = unmeasured(WORDS, "it is dark")
    assert (row.parts, row.decides) == ([Measurement("not measured: it is dark")], None)
    assert (row.deciding.value, row.verdict) == (None, OPEN)
