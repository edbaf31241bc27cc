"""Figures draw the table's numbers, and their axes name them."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from mechvit.visualization.figures import (
    class_probability,
    cosine_distances,
    cosine_distributions,
    entropy_difference,
    first_correct_difference,
    first_correct_layers,
    gains,
    pattern_change,
    table_one,
    training_curves,
    transfer,
)
from mechvit.visualization.report.sections import SECTIONS
from mechvit.visualization.style import DARK, FONT, GRID, INK, MUTED, colour, finish, in_order, title_of

SPECS = [spec for section in SECTIONS for spec in section.figures]


def named(figure, name: str, axis: str = "x"):
    """The visible trace of this name in a panel."""
    (trace,) = [t for t in figure.data if t.name == name and (t.xaxis or "x") == axis]
    return trace


def axis_titles(figure) -> str:
    axes = [*figure.select_xaxes(), *figure.select_yaxes()]
    return " | ".join(axis.title.text for axis in axes if axis.title.text)


def test_table_one_matches_table(run):
    summary = run.table("performance_summary")
    figure = table_one(summary)
    drawn = {(t.xaxis or "x", t.y[0]): t for t in figure.data}
    panels = [(c, m) for c in ("gaussian_blur_4", "gaussian_noise_4") for m in ("accuracy", "top5", "top10", "ece")]
    assert len(figure.data) == len(panels) * summary["model"].nunique()
    rows = summary.set_index(["corruption", "metric", "model"])
    for place, (corruption, metric) in enumerate(panels, start=1):
        for model in summary["model"].unique():
            trace = drawn["x" if place == 1 else f"x{place}", title_of(model, short=True)]
            row = rows.loc[(corruption, metric, model)]
            assert trace.x[0] == row["value"]
            assert trace.x[0] + trace.error_x.array[0] == pytest.approx(row["high"], abs=1e-12)
            assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(row["low"], abs=1e-12)
            assert trace.marker.color == colour(model)
    assert "fraction, higher is better" in axis_titles(figure)
    assert "error, lower is better" in axis_titles(figure)


def test_metrics_of_few_classes_are_marked_as_not_applicable(run):
    summary = run.table("performance_summary").copy()
    numbers = ["value", "low", "high", "gain", "gain_low", "gain_high"]
    summary.loc[summary["metric"] == "top10", numbers] = np.nan
    for figure in (table_one(summary), gains(summary)):
        text = figure.to_json().replace("\\u002f", "/")
        assert "Top-10 (n/a)" in text
        assert "Top-5 (n/a)" not in text
        assert "NaN" not in text


def test_gains_match_table_in_percentage_points(run):
    summary = run.table("performance_summary").set_index(["corruption", "metric", "model"])
    figure = gains(run.table("performance_summary"))
    for family, axis in (("blur", "x"), ("noise", "x2")):
        for level in (1, 2, 4):
            trace = named(figure, f"tuned on {family} {level}", axis)
            rows = [
                summary.loc[(f"gaussian_{family}_4", m, f"gaussian_{family}_{level}")]
                for m in ("accuracy", "top5", "top10")
            ]
            np.testing.assert_allclose(trace.y, [100 * row["gain"] for row in rows], rtol=1e-12)
            np.testing.assert_allclose(
                trace.y + trace.error_y.array, [100 * row["gain_high"] for row in rows], rtol=1e-12
            )
    assert "gain over the base (percentage points)" in axis_titles(figure)


def test_transfer_matches_table(run):
    summary = run.table("performance_summary")
    heat = transfer(summary).data[0]
    rows = summary[summary["metric"] == "accuracy"].set_index(["model", "corruption"])
    for y, model in enumerate(in_order(summary["model"])):
        for x, corruption in enumerate(in_order(summary["corruption"])):
            row = rows.loc[(model, corruption)]
            sure = row["gain_low"] > 0 or row["gain_high"] < 0
            assert heat.text[y][x] == (f"<b>{row['value']:.3f}</b>" if sure else f"{row['value']:.3f}")
            assert heat.z[y][x] == pytest.approx(0 if model == "base" else 100 * row["gain"])
    assert heat.zmin == -heat.zmax  # no change is the middle of the colours


@pytest.mark.parametrize(
    ("draw", "table", "column", "quantity", "axes", "says"),
    [
        (class_probability, "lens_summary", "probability", None, ("x", "x2"), "mean probability of the correct class"),
        (entropy_difference, "attention_summary", "value", "entropy_difference", ("x", "x2"), "nats<br>(positive ="),
        (pattern_change, "attention_summary", "value", "cosine", ("x", "x2"), "(1 = unchanged)"),
        (pattern_change, "attention_summary", "value", "squared_difference", ("x3", "x4"), "(0 = unchanged)"),
    ],
)
def test_layer_lines_match_table(run, draw, table, column, quantity, axes, says):
    frame = run.table(table)
    figure = draw(frame)
    if quantity:
        frame = frame[frame["quantity"] == quantity]
    for corruption, axis in zip(("gaussian_blur_4", "gaussian_noise_4"), axes, strict=True):
        for model in frame["model"].unique():
            trace = named(figure, title_of(model, short=True), axis)
            rows = frame[(frame["model"] == model) & (frame["corruption"] == corruption)].sort_values("layer")
            np.testing.assert_array_equal(trace.x, rows["layer"])
            np.testing.assert_array_equal(trace.y, rows[column])
            np.testing.assert_array_equal(trace.customdata, rows[["low", "high"]])
        base = frame[(frame["model"] == "base") & (frame["corruption"] == corruption)].sort_values("layer")
        band = [t for t in figure.data if t.legendgroup == "base" and t.name is None and (t.xaxis or "x") == axis]
        np.testing.assert_array_equal([t.y for t in band], [base["high"], base["low"]])
    assert says in axis_titles(figure)
    assert "layer" in axis_titles(figure)


def test_first_correct_layers_matches_counts(run):
    first = run.table("first_correct")
    figure = first_correct_layers(first)
    rows = first[(first["model"] == "gaussian_blur_4") & (first["corruption"] == "gaussian_blur_4")]
    trace = named(figure, "Blur 4 tuned")
    for layer, share in zip(trace.x, trace.y, strict=True):
        assert share == pytest.approx(100 * (rows["layer"] == layer).sum() / len(rows))
    assert sum(trace.y) == pytest.approx(100)
    assert "share of images (%)" in axis_titles(figure)


def test_first_correct_difference_matches_table(run):
    summary = run.table("first_correct_summary").set_index(["model", "corruption"])
    figure = first_correct_difference(run.table("first_correct_summary"))
    order = ["gaussian_noise_4", "gaussian_noise_2", "gaussian_noise_1"]
    order += ["gaussian_blur_4", "gaussian_blur_2", "gaussian_blur_1"]
    for trace, model in zip(figure.data, order, strict=True):
        row = summary.loc[(model, model)]
        assert trace.x[0] == row["difference"]
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(row["difference_high"])
    assert "layers; negative = earlier" in axis_titles(figure)


def test_cosine_distributions_match_numpy(run):
    cosine = run.table("sae_cosine")
    figure = cosine_distributions(cosine, bins=20)
    values = cosine.query("model == 'gaussian_noise_4' and architecture == 'batchtopk'")["cosine"]
    trace = named(figure, "Noise 4 tuned", "x4")
    counts = [((values >= i / 20) & ((values < (i + 1) / 20) | (i == 19))).sum() for i in range(20)]
    np.testing.assert_allclose(trace.y, np.array(counts) / len(values) * 20, rtol=1e-6)
    assert sum(trace.y) / 20 == pytest.approx(1)


def test_cosine_distributions_reach_below_zero():
    rows = [("base", -0.5), ("base", 0.5), ("gaussian_blur_4", 0.25), ("gaussian_blur_4", 0.75)]
    frame = pd.DataFrame(rows, columns=["model", "cosine"]).assign(
        architecture="standard", corruption="gaussian_blur_4"
    )
    trace = named(cosine_distributions(frame, bins=4), "Base")
    np.testing.assert_allclose(trace.x, [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(trace.y, [0, 1, 0, 1])  # [-.5, 0) and [.5, 1], half a width each


def test_cosine_distances_match_table(run):
    distance = run.table("sae_distance").set_index(["statistic", "model", "architecture"])
    figure = cosine_distances(run.table("sae_distance"))
    (trace,) = [t for t in figure.data if t.xaxis == "x2" and t.y[0] == "Noise 4, BatchTopK SAE"]
    row = distance.loc[("kolmogorov_smirnov", "gaussian_noise_4", "batchtopk")]
    assert trace.x[0] == row["value"]
    assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(row["low"])
    assert "largest gap of the CDFs" in axis_titles(figure)


def test_training_curves_match_table(run):
    history = run.table("sae_history").query("model == 'base' and architecture == 'standard' and metric == 'l0'")
    trace = named(training_curves(run.table("sae_history")), "Base, Vanilla SAE", "x2")
    np.testing.assert_array_equal(trace.x, history["tokens"])
    np.testing.assert_array_equal(trace.y, history["value"])


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_every_figure_names_a_missing_column_and_an_empty_table(run, spec):
    frame = run.table(spec.table, spec.columns)
    column = "model"
    with pytest.raises(ValueError, match=rf"table {spec.table} must have the columns .* lacks {column}"):
        spec.figure(frame.drop(columns=column))
    with pytest.raises(ValueError, match=spec.table):
        spec.figure(frame.iloc[:0])


@pytest.mark.long
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_every_colour_has_a_dark_partner(run, spec):
    text = spec.figure(run.table(spec.table, spec.columns)).update_layout(template=None).to_json()
    used = set(re.findall(r"#[0-9a-f]{6}", text))
    rgba = re.findall(r"rgba\((\d+),(\d+),(\d+)", text)
    used |= {"#" + "".join(f"{int(part):02x}" for part in parts) for parts in rgba if parts != ("0", "0", "0")}
    assert len(used) > 3
    assert used <= set(DARK)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.table != "sae_history"], ids=lambda spec: spec.id)
def test_one_family_is_enough(run, spec):
    frame = run.table(spec.table, spec.columns)
    frame = frame[~frame["model"].str.startswith("gaussian_noise")]
    frame = frame[~frame["corruption"].str.startswith("gaussian_noise")]
    drawn = spec.figure(frame).update_layout(template=None).to_json()
    assert "lur 4" in drawn
    assert "oise" not in drawn
    text = " ".join(spec.reading(frame))
    assert "family" in text if spec.id == "transfer" else "lur 4" in text
    assert "oise" not in text


def test_a_finished_figure_is_as_plotlys_own_update_methods_would_make_it():
    def drawn():
        figure = make_subplots(1, 2, subplot_titles=["one", "two"])
        figure.add_trace(go.Scatter(x=[1, 2], y=[3, 4]), 1, 2)
        figure.update_layout(legend={"x": 0.5, "title": {"text": "models"}}, xaxis2={"title": {"text": "layer"}})
        return figure.update_yaxes(range=[0, 1], row=1, col=1)

    found = finish(drawn(), "title", height=200)
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": MUTED, "tickcolor": MUTED}
    axis |= {"tickfont_size": 12, "tickfont_color": MUTED, "title_font_size": 12.5, "title_font_color": INK}
    wanted = drawn().update_xaxes(showgrid=False, showline=True, ticks="outside", ticklen=4, **axis)
    wanted.update_yaxes(showgrid=True, showline=False, ticks="", automargin=True, ticklabelstandoff=5, **axis)
    wanted.update_yaxes(title_standoff=10).update_annotations(font={"family": FONT, "size": 13.5, "color": INK})
    for part in (*("xaxis", "xaxis2", "yaxis", "yaxis2"), "annotations"):
        assert found.layout[part] == wanted.layout[part], part
    assert found.layout.legend.to_plotly_json() == {
        "orientation": "h",
        "x": 0,
        "y": 1.13,
        "yanchor": "bottom",
        "font": {"size": 12.5},
        "title": {"text": "models"},
    }
    assert (found.layout.height, found.layout.title.text, found.data) == (200, "title", wanted.data)
    assert finish(go.Figure(), "none").layout.xaxis.ticks == "outside"
