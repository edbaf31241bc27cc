"""The figures of representations and ablations draw the tables' numbers."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest

from mechvit.visualization.figures import (
    corruption_similarity,
    depth_change,
    feature_ablations,
    feature_changes,
    lens_comparison,
    model_similarity,
    similarity_matrix,
)
from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.style import DARK, colour

BASE, TUNED, LAYERS = "base", "gaussian_blur_4", range(4)


def table(keys, columns, values, seed):
    """Every row of keys with a value and an interval about it."""
    rng, rows = np.random.default_rng(seed), []
    for key in keys:
        found = rng.uniform(0.2, 0.9, len(values))
        rows.append((*key, *(part for value in found for part in (value, value - 0.05, value + 0.1))))
    names = [name for value in values for name in value]
    return pd.DataFrame(rows, columns=[*columns, *names]).sample(frac=1, random_state=seed).reset_index(drop=True)


@pytest.fixture(scope="module")
def cka():
    pairs = [(BASE, "clean", TUNED, "clean"), (BASE, TUNED, TUNED, TUNED)]
    pairs += [(BASE, "clean", BASE, TUNED), (TUNED, "clean", TUNED, TUNED)]
    keys = [(*pair, a, b) for pair, a, b in product(pairs, LAYERS, LAYERS)]
    names = ["model_a", "corruption_a", "model_b", "corruption_b", "layer_a", "layer_b"]
    return table(keys, names, [("cka", "low", "high")], 0)


@pytest.fixture(scope="module")
def lenses():
    keys = product((BASE, TUNED), ("clean", TUNED), ("logit", "tuned"), LAYERS, ("probability", "divergence"))
    return table(keys, ["model", "corruption", "lens", "layer", "quantity"], [("value", "low", "high")], 1)


@pytest.fixture(scope="module")
def depths():
    keys = product((BASE, TUNED), ("clean", TUNED), ("logit", "tuned"), ("all", "both_correct"), (50,))
    values = [("depth", "low", "high"), ("change", "change_low", "change_high")]
    return table(keys, ["model", "corruption", "lens", "subset", "n"], values, 2)


@pytest.fixture(scope="module")
def ablations():
    kinds = [("untouched", 0), *product(("sensitive", "control"), (1, 4, 16))]
    quantities = ("accuracy", "loss")
    keys = [(c, *kind, q) for c, kind, q in product(("clean", TUNED), kinds, quantities)]
    values = [("value", "low", "high"), ("change", "change_low", "change_high")]
    return table(keys, ["corruption", "kind", "n", "quantity"], values, 3)


@pytest.fixture(scope="module")
def changes():
    values = [("difference", "low", "high"), ("beyond", "beyond_low", "beyond_high")]
    frame = table(product((BASE, TUNED), range(30)), ["model", "feature"], values, 4)
    frame["beyond"] -= 0.5
    frame["beyond_q"] = np.linspace(0, 0.2, len(frame))
    return frame.sort_values("model", kind="stable")


def named(figure, name, axis="y"):
    (trace,) = [t for t in figure.data if t.name == name and t.yaxis == axis and t.line.width]
    return trace


def test_similarities_match_table(cka):
    between = model_similarity(cka)
    assert [a.text for a in between.layout.annotations] == ["<b>Clean images</b>", "<b>Images with Gaussian blur 4</b>"]
    for axis, corruption in (("y", "clean"), ("y2", TUNED)):
        part = pick(cka, model_a=BASE, model_b=TUNED, corruption_a=corruption, corruption_b=corruption)
        part = part[part["layer_a"] == part["layer_b"]].sort_values("layer_a")
        trace = named(between, "Blur 4", axis)
        np.testing.assert_array_equal(trace.y, part["cka"])
        np.testing.assert_array_equal(trace.customdata, part[["low", "high"]])
    within = corruption_similarity(cka)
    for model, name in ((BASE, "Base"), (TUNED, "Blur 4")):
        part = pick(cka, model_a=model, model_b=model)
        part = part[part["layer_a"] == part["layer_b"]].sort_values("layer_a")
        np.testing.assert_array_equal(named(within, name).y, part["cka"])
    assert "1 = same" in within.layout.yaxis.title.text


def test_matrix_matches_table(cka):
    figure = similarity_matrix(cka)
    assert len(figure.data) == 4
    (trace,) = [t for t in figure.data if t.name == "Base: clean and Blur 4: clean"]
    rows = pick(cka, model_a=BASE, model_b=TUNED, corruption_a="clean").set_index(["layer_a", "layer_b"])
    for i, j in product(LAYERS, LAYERS):
        row = rows.loc[(trace.x[i], trace.y[j])]
        assert trace.z[j][i] == row["cka"]
        assert list(trace.customdata[j][i]) == [row["low"], row["high"]]
    assert figure.layout.coloraxis.cmax == 1


def test_lenses_match_table(lenses):
    figure = lens_comparison(lenses)
    for (row, quantity), (col, corruption) in product(
        enumerate(("probability", "divergence")), enumerate(("clean", TUNED))
    ):
        axis = "y" if row == col == 0 else f"y{2 * row + col + 1}"
        for lens, dash in (("logit", "dot"), ("tuned", "solid")):
            part = pick(lenses, model=TUNED, corruption=corruption, lens=lens, quantity=quantity).sort_values("layer")
            trace = named(figure, f"Blur 4, {lens} lens", axis)
            np.testing.assert_array_equal(trace.y, part["value"])
            np.testing.assert_array_equal(trace.customdata, part[["low", "high"]])
            assert trace.line.dash == dash
    assert "nats" in figure.layout.yaxis3.title.text


def test_depths_match_table(depths):
    figure = depth_change(depths)
    for axis, lens in (("x", "logit"), ("x2", "tuned")):
        for subset, says in (("all", "all images"), ("both_correct", "both right")):
            (trace,) = [t for t in figure.data if t.name == f"Blur 4 tuned, {says}" and t.xaxis == axis]
            part = pick(depths, model=TUNED, lens=lens, subset=subset)
            np.testing.assert_array_equal(trace.x, part["change"])
            np.testing.assert_allclose(trace.x + trace.error_x.array, part["change_high"])
            rows = [figure.layout.yaxis.ticktext[round(y)] for y in trace.y]
            assert rows == [f"Blur 4 tuned, on {'clean' if c == 'clean' else 'blur 4'}" for c in part["corruption"]]
    assert "negative = earlier" in figure.layout.xaxis.title.text


def test_ablations_match_table(ablations):
    figure = feature_ablations(ablations)
    for axis, corruption, quantity in (
        ("y", "clean", "accuracy"),
        ("y4", TUNED, "loss"),
        ("y3", "clean", "loss"),
    ):
        for kind, name in (("sensitive", "most sensitive"), ("control", "equally frequent others (mean of draws)")):
            part = pick(ablations, corruption=corruption, kind=kind, quantity=quantity).sort_values("n")
            trace = named(figure, name, axis)
            np.testing.assert_array_equal(trace.x, [1, 4, 16])
            np.testing.assert_array_equal(trace.y, part["change"])
            np.testing.assert_array_equal(trace.customdata, part[["change_low", "change_high"]])
    assert "negative = better" in figure.layout.yaxis3.title.text


def test_changes_match_table(changes):
    figure = feature_changes(changes)
    (trace,) = figure.data
    base, tuned = (pick(changes, model=model).set_index("feature") for model in (BASE, TUNED))
    latents = trace.customdata[:, 0].astype(int)
    np.testing.assert_array_equal(trace.x, base.loc[latents, "difference"])
    np.testing.assert_array_equal(trace.y, tuned.loc[latents, "difference"])
    rows = tuned.loc[latents]
    apart = rows["beyond_q"] < 0.05
    assert 0 < apart.sum() < len(apart)
    assert [symbol == "circle" for symbol in trace.marker.symbol] == apart.tolist()
    assert 0 < apart.sum() < 30
    assert {int(text) for text in trace.text if text} == set(rows["beyond"].abs().nlargest(3).index)


def drawings(cka, lenses, depths, ablations, changes):
    return [
        (model_similarity, cka, "layer_a"),
        (corruption_similarity, cka, "corruption_b"),
        (similarity_matrix, cka, "cka"),
        (lens_comparison, lenses, "lens"),
        (depth_change, depths, "subset"),
        (feature_ablations, ablations, "change_low"),
        (feature_changes, changes, "beyond"),
    ]


def test_colours_have_a_dark_partner(cka, lenses, depths, ablations, changes):
    for draw, frame, _ in drawings(cka, lenses, depths, ablations, changes):
        used = set(re.findall(r"#[0-9a-f]{6}", draw(frame).update_layout(template=None).to_json()))
        assert len(used) > 3
        assert used <= set(DARK)
    assert colour(TUNED) in used


def test_missing_columns_and_rows_are_named(cka, lenses, depths, ablations, changes):
    for draw, frame, column in drawings(cka, lenses, depths, ablations, changes):
        with pytest.raises(ValueError, match=rf"lacks {column}"):
            draw(frame.drop(columns=column))
        with pytest.raises(ValueError, match="at least one row"):
            draw(frame.iloc[:0])
    for draw, frame in ((depth_change, depths), (feature_changes, changes)):
        with pytest.raises(ValueError, match="at least one row"):
            draw(frame[frame["model"] == BASE])
