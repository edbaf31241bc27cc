"""Figures of a comparison: the numbers drawn, colours by position, names as plain text."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from mechvit.visualization.figures import comparisons as draw
from mechvit.visualization.style import BASE


def rows(columns: dict[str, list], seed: int = 0) -> pd.DataFrame:
    """Every combination of some values, with a random value and an interval around it."""
    table = pd.DataFrame(list(itertools.product(*columns.values())), columns=list(columns))
    value = np.random.default_rng(seed).normal(size=len(table))
    return table.assign(value=value, low=value - 0.1, high=value + 0.2)


def test_dots_stand_at_their_values_with_their_intervals():
    table = rows({"panel": ["accuracy", "ece"], "model": ["plain", "<b>odd</b>"], "group": ["Clean", "Fog 3"]})
    figure = draw.grouped_dots(table, "Title", {"accuracy": "accuracy", "ece": "ECE"}, base="plain")
    assert len(figure.data) == 4
    first = figure.data[0]
    own = table.query("panel == 'accuracy' and model == 'plain'")
    assert np.allclose(first.x, own["value"])
    assert np.allclose(first.error_x.array, 0.2)
    assert np.allclose(first.error_x.arrayminus, 0.1)
    assert first.marker.color == BASE
    assert figure.data[1].name == "&lt;b&gt;odd&lt;/b&gt;"


def test_kinds_of_flips_are_stacked_in_percent():
    table = rows({"model": ["tuned"], "group": ["Clean"], "quantity": ["negative_flips", "positive_flips"]})
    figure = draw.flip_bars(table)
    assert figure.layout.barmode == "stack"
    assert [trace.x[0] for trace in figure.data] == pytest.approx(list(100 * table["value"]))


def test_every_line_has_a_band_and_bases_are_grey():
    table = rows({"panel": ["cka"], "condition": ["Clean", "Blur"], "model": ["b", "t"], "layer": [0, 1, 2]})
    figure = draw.layer_curves(table, "Title", {"cka": "CKA", "absent": "?"}, base="b")
    assert len(figure.data) == 2 * 2 * 3
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [line.line.color == BASE for line in lines] == [True, False, True, False]
    assert np.allclose(lines[0].y, table.query("condition == 'Clean' and model == 'b'")["value"])


def test_a_quantity_with_both_signs_is_coloured_about_zero():
    table = rows({"model": ["t"], "panel": ["js", "entropy"], "layer": [0, 1], "head": [0, 1, 2]})
    table.loc[table["panel"] == "js", "value"] = table["value"].abs()
    figure = draw.head_maps(table, "Title", {"js": "JS", "entropy": "nats"})
    js, entropy = figure.layout.coloraxis, figure.layout.coloraxis2
    assert js.cmin == 0
    assert entropy.cmin == -entropy.cmax
    wide = table.query("panel == 'js'").pivot(index="head", columns="layer", values="value")
    assert np.allclose(figure.data[0].z, wide)


def test_colours_follow_positions_and_the_base_is_grey():
    tints = draw.tints_of(["a", "base model", "c"], "base model")
    assert tints["base model"] == BASE
    assert len({tints["a"], tints["c"], BASE}) == 3


@pytest.mark.parametrize("call", [draw.grouped_dots, draw.layer_curves, draw.head_maps])
def test_tables_without_rows_or_columns_are_refused(call):
    with pytest.raises(ValueError, match="table Title must have the columns"):
        call(pd.DataFrame({"model": ["a"]}), "Title", {"a": "b"})


def test_a_model_keeps_its_colour_where_others_are_left_out():
    table = rows({"panel": ["kl"], "model": ["second"], "group": ["Clean"]})
    figure = draw.grouped_dots(table, "Title", {"kl": "nats"}, order=["first", "second"])
    tints = draw.tints_of(["first", "second"])
    assert figure.data[0].marker.color == tints["second"] != tints["first"]
    curves = rows({"panel": ["kl"], "condition": ["Clean"], "model": ["second"], "layer": [0, 1]})
    lines = draw.layer_curves(curves, "Title", {"kl": "nats"}, order=["first", "second"], across="block")
    assert lines.data[-1].line.color == tints["second"]
    assert lines.layout.xaxis.title.text == "block"
