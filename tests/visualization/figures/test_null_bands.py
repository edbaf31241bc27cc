"""Limits of null models are grey in figures of differences, and are drawn where a table has them alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechvit.visualization.figures.comparisons import grouped_dots, layer_curves


def curves(**limits) -> pd.DataFrame:
    layers = np.arange(3)
    table = pd.DataFrame({"model": "tuned", "panel": "kl", "condition": "Clean", "layer": layers, "value": layers / 10})
    return table.assign(low=table["value"] - 0.1, high=table["value"] + 0.1, **limits)


def nulls_of(figure) -> list:
    return [trace for trace in figure.data if trace.legendgroup == "nulls"]


def test_a_band_spans_the_limits_by_layer():
    figure = layer_curves(curves(null_low=[0.3, 0.2, 0.1], null_high=[0.5, 0.6, 0.7]), "KL", {"kl": "nats"})
    upper, lower = nulls_of(figure)
    assert list(upper.x) == list(lower.x) == [0, 1, 2]
    assert list(upper.y) == [0.5, 0.6, 0.7]
    assert list(lower.y) == [0.3, 0.2, 0.1]
    assert lower.fill == "tonexty"


def test_a_bar_spans_the_limits_of_its_group():
    rows = pd.DataFrame({"model": "tuned", "panel": "kl", "group": ["a", "b"], "value": 0.2, "low": 0.1, "high": 0.3})
    figure = grouped_dots(rows.assign(null_low=[np.nan, 0.05], null_high=[np.nan, 0.4]), "KL", {"kl": "nats"})
    (bar,) = nulls_of(figure)
    assert list(bar.x) == [0.05, 0.4]
    assert list(bar.y) == [1, 1]


@pytest.mark.parametrize("limits", [{}, {"null_low": np.nan, "null_high": np.nan}])
def test_without_limits_nothing_is_grey(limits):
    assert nulls_of(layer_curves(curves(**limits), "KL", {"kl": "nats"})) == []
