"""The scale of a dose is found on curves whose inverse is known."""

from __future__ import annotations

import math

import pytest

from mechvit.benchmark.dose import MOST, scale_of_dose


@pytest.mark.parametrize("power", [1, 2, 4])
@pytest.mark.parametrize("dose", [1e-4, 0.3, 7.0])
def test_a_power_is_inverted(power, dose):
    scale, value = scale_of_dose(lambda t: 3 * t**power, dose, math.inf, 0.01)
    assert value == pytest.approx(dose, rel=0.01)
    assert 3 * scale**power == value


def test_a_dose_out_of_reach_gives_the_strongest():
    assert scale_of_dose(lambda t: t * (1.5 - t), 2.0, 1.0, 0.01)[0] == pytest.approx(0.8, abs=0.1)
    assert scale_of_dose(lambda t: math.atan(t), 2.0, 1.0, 0.01) == (1.0, math.atan(1.0))
    assert scale_of_dose(lambda t: math.tanh(t), 2.0, math.inf, 0.01)[1] == pytest.approx(1)
    assert scale_of_dose(lambda t: 1e-3 * t, 2.0, math.inf, 0.01)[0] == MOST


def test_values_that_are_not_finite_are_too_much():
    assert scale_of_dose(lambda t: t if t < 5 else math.inf, 4.0, math.inf, 0.01)[1] == pytest.approx(4, rel=0.01)
