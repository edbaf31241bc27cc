"""The frontier and the density histograms draw the table's numbers."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from mechvit.visualization.figures import feature_density, frontier
from mechvit.visualization.style import DARK, colour


@pytest.fixture
def points() -> pd.DataFrame:
    """A sweep of two kinds, and a kind that no list knows, clean and corrupted, in no order."""
    rows = [
        ("b16", "batchtopk", 16.2, 0.81, 16, 1e-3),
        ("b64", "batchtopk", 64.5, 0.95, 64, 1e-3),
        ("b32", "batchtopk", 32.1, 0.88, 32, 3e-4),
        ("s1", "standard", 40.0, 0.7, np.nan, 1e-3),
        ("s2", "standard", 20.0, 0.6, np.nan, 1e-3),
        ("mine", "temporal", 30.0, 0.5, np.nan, np.nan),
    ]
    frame = pd.DataFrame(rows, columns=["architecture", "kind", "l0", "explained_variance", "k", "lr"])
    noisy = frame.assign(corruption="gaussian_noise_4", explained_variance=frame["explained_variance"] - 0.2)
    return pd.concat([noisy, frame.assign(corruption="clean")], ignore_index=True)


@pytest.fixture
def density() -> pd.DataFrame:
    rows = [
        (name, key, low, low + 0.5 if np.isfinite(low) else low, 10 * place + len(key))
        for name in ("standard", "batchtopk_k8", "c", "d")
        for key in ("gaussian_blur_2", "clean")
        for place, low in enumerate([-np.inf, -1.0, -0.5])
    ]
    return pd.DataFrame(rows, columns=["architecture", "corruption", "low", "high", "latents"])


def panel(figure, place: int):
    return [trace for trace in figure.data if (trace.xaxis or "x") == ("x" if place == 1 else f"x{place}")]


def test_frontier_joins_saes_of_one_kind_in_order_of_l0(points):
    figure = frontier(points)
    assert [trace.name for trace in panel(figure, 1)] == ["Vanilla SAE", "BatchTopK SAE", "temporal"]
    clean, noisy = panel(figure, 1)[1], panel(figure, 2)[1]
    assert list(clean.x) == list(noisy.x) == [16.2, 32.1, 64.5]
    assert list(clean.y) == [0.81, 0.88, 0.95]
    np.testing.assert_allclose(noisy.y, [0.61, 0.68, 0.75])
    assert clean.marker.color == clean.line.color == colour("gaussian_noise_2")
    assert [tuple(row) for row in clean.customdata] == [("b16", 16, 1e-3), ("b32", 32, 3e-4), ("b64", 64, 1e-3)]
    assert "k %{customdata[1]" in clean.hovertemplate
    assert "lr %{customdata[2]" in clean.hovertemplate
    assert len({trace.marker.color for trace in panel(figure, 1)}) == 3
    assert {axis.type for axis in figure.select_xaxes()} == {"log"}
    assert "L0 (active latents per token" in figure.layout.xaxis.title.text
    assert "1 is perfect" in figure.layout.yaxis.title.text
    assert [note.text for note in figure.layout.annotations] == ["<b>Clean</b>", "<b>Gaussian noise 4</b>"]
    assert [trace.showlegend for trace in figure.data] == [True] * 3 + [False] * 3


def test_frontier_never_joins_two_hook_points(points):
    points["hook_name"] = np.where(points["architecture"].isin(["b16", "s1"]), "blocks.1.hook_resid_post", "hook_embed")
    figure = frontier(points)
    drawn = {trace.name: (list(trace.x), trace.line.dash) for trace in panel(figure, 1)}
    assert drawn["BatchTopK SAE, blocks.1.hook_resid_post"] == ([16.2], "solid")
    assert drawn["BatchTopK SAE, hook_embed"] == ([32.1, 64.5], "dash")
    assert drawn["Vanilla SAE, hook_embed"] == ([20.0], "dash")
    assert len(drawn) == 5


def test_frontier_needs_no_settings(points):
    figure = frontier(points[["architecture", "kind", "corruption", "l0", "explained_variance"]])
    assert "customdata[1]" not in figure.data[0].hovertemplate


def test_density_draws_the_bins_and_says_how_many_are_dead(density):
    figure = feature_density(density)
    for place, name in enumerate(("standard", "batchtopk_k8", "c", "d"), start=1):
        clean, blurred = panel(figure, place)
        for trace, key in ((clean, "clean"), (blurred, "gaussian_blur_2")):
            assert list(trace.x) == [-0.75, -0.25]
            assert list(trace.y) == [10 + len(key), 20 + len(key)]
            assert f"; {len(key)} never fire" in trace.hovertemplate
            assert trace.line.color == colour(key)
        title = figure.layout.annotations[place - 1].text
        assert title == ("<b>Vanilla SAE</b>" if name == "standard" else f"<b>{name}</b>")
    assert "share of tokens" in figure.layout.xaxis.title.text
    legend, height = figure.layout.legend, figure.layout.height  # below the title and above the panels, in two rows
    assert 20 < height * (1 - legend.y) < figure.layout.margin.t - 36


@pytest.mark.parametrize("draw", [frontier, feature_density])
def test_bad_tables_are_named(points, density, draw):
    frame = points if draw is frontier else density
    for column in ("corruption", "architecture"):
        with pytest.raises(ValueError, match=f"must have the columns .* lacks {column}"):
            draw(frame.drop(columns=column))
    with pytest.raises(ValueError, match="at least one row"):
        draw(frame.iloc[:0])


@pytest.mark.parametrize("draw", [frontier, feature_density])
def test_every_colour_has_a_dark_partner(points, density, draw):
    everything = points.assign(kind=["standard", "batchtopk", "topk", "jumprelu", "gated", "matryoshka_batchtopk"] * 2)
    text = draw(everything if draw is frontier else density).update_layout(template=None).to_json()
    used = set(re.findall(r"#[0-9a-f]{6}", text))
    assert len(used) > 3
    assert used <= set(DARK)
