"""The figures of patching draw the tables' numbers."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from mechvit.visualization.figures import attribution_scatter, head_links, patching_map
from mechvit.visualization.figures.table_checks import pick
from mechvit.visualization.style import DARK

COMPONENTS = [("resid", layer, -1) for layer in range(3)] + [
    (kind, layer, head)
    for kind, heads in (("attn", [-1]), ("mlp", [-1]), ("head", [0, 1]))
    for head in heads
    for layer in (0, 1)
]


def triple(generator: np.random.Generator, width: float = 0.3) -> list[float]:
    value = generator.uniform(-0.6, 1.2)
    return [value, value - generator.uniform(0.05, width), value + generator.uniform(0.05, width)]


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = [
        (model, *component, tokens, quantity, *triple(generator), *triple(generator))
        for model in ("gaussian_blur_4", "gaussian_noise_4")
        for component in COMPONENTS
        for tokens in ("all", "cls")
        for quantity in ("accuracy", "logit_difference")
    ]
    names = ["value", "low", "high", "recovered", "recovered_low", "recovered_high"]
    frame = pd.DataFrame(rows, columns=["model", "kind", "layer", "head", "tokens", "quantity", *names])
    return frame.sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def components() -> pd.DataFrame:
    generator = np.random.default_rng(1)
    rows = [(*component, "all", *triple(generator), *triple(generator)) for component in COMPONENTS]
    sides = [f"{side}{end}" for side in ("exact", "approximate") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["kind", "layer", "head", "tokens", *sides])


@pytest.fixture(scope="module")
def overall() -> pd.DataFrame:
    rows = [
        (kind, quantity, value, value - 0.05, value + 0.02)
        for kind, shift in (("all", 0.0), ("mlp", 0.1))
        for quantity, value in (("pearson", 0.871 - shift), ("spearman", 0.713), ("relative_error", 0.254))
    ]
    return pd.DataFrame(rows, columns=["kind", "quantity", "value", "low", "high"])


@pytest.fixture(scope="module")
def links() -> pd.DataFrame:
    generator = np.random.default_rng(2)
    effects = {(layer, head): triple(generator, 0.5) for layer in (0, 1, 2) for head in (0, 1)}
    rows = [
        (model, number, *place, *triple(generator), *effect)
        for model in ("receiver", "giver", "change")
        for number in ("distance", "entropy")
        for place, effect in effects.items()
    ]
    names = ["value", "low", "high", "effect", "effect_low", "effect_high"]
    return pd.DataFrame(rows, columns=["model", "number", "layer", "head", *names])


@pytest.fixture(scope="module")
def correlations(links) -> pd.DataFrame:
    generator = np.random.default_rng(3)
    pairs = links[["model", "number"]].drop_duplicates()
    found = [triple(generator) for _ in range(len(pairs))]
    return pairs.assign(**dict(zip(("value", "low", "high"), np.transpose(found), strict=True)))


@pytest.mark.parametrize("quantity", ["logit_difference", "accuracy"])
def test_map_matches_table(summary, quantity):
    figure = patching_map(summary, quantity=quantity)
    panels = [(model, tokens) for model in ("gaussian_blur_4", "gaussian_noise_4") for tokens in ("all", "cls")]
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles[0] == "<b>Gaussian blur 4, all tokens</b>"
    assert titles[3] == "<b>Gaussian noise 4, CLS</b>"
    bold = 0
    for trace, (model, tokens) in zip(figure.data, panels, strict=True):
        assert list(trace.y) == ["Residual stream", "Attention", "MLP", "Head 0", "Head 1"]
        rows = pick(summary, model=model, tokens=tokens, quantity=quantity).set_index(["kind", "head", "layer"])
        for i, key in enumerate([("resid", -1), ("attn", -1), ("mlp", -1), ("head", 0), ("head", 1)]):
            for j, layer in enumerate(trace.x):
                if (*key, layer) not in rows.index:
                    assert np.isnan(trace.z[i][j])
                    assert trace.text[i][j] == ""
                    continue
                row = rows.loc[(*key, layer)]
                assert trace.z[i][j] == row["recovered"]
                assert list(trace.customdata[i][j]) == [row["recovered_low"], row["recovered_high"], row["value"]]
                sure = row["recovered_low"] > 0 or row["recovered_high"] < 0
                bold += sure
                wanted = f"{row['recovered']:.2f}"
                assert trace.text[i][j] == (f"<b>{wanted}</b>" if sure else wanted)
    assert 0 < bold < 44
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    assert "0 receiver, 1 giver" in figure.layout.coloraxis.colorbar.title.text
    assert quantity.replace("_", " ") in figure.layout.title.text


def test_map_of_one_pair_and_of_no_gap(summary):
    one = pick(summary, model="gaussian_blur_4", tokens="all").drop(columns="model")
    figure = patching_map(one.assign(recovered=np.nan, recovered_low=np.nan, recovered_high=np.nan))
    assert [annotation.text for annotation in figure.layout.annotations] == ["<b>All tokens</b>"]
    assert np.isnan(figure.data[0].z).all()
    assert set(np.ravel(figure.data[0].text)) == {""}


def test_attribution_scatter_matches_tables(components, overall):
    figure = attribution_scatter(components, overall)
    names = {"Residual stream": "resid", "Attention": "attn", "MLP": "mlp", "Head": "head"}
    assert [trace.name for trace in figure.data] == ["equal", *names]
    assert list(figure.data[0].x) == list(figure.data[0].y)
    for trace in figure.data[1:]:
        part = pick(components, kind=names[trace.name])
        np.testing.assert_array_equal(trace.x, part["exact"])
        np.testing.assert_array_equal(trace.y, part["approximate"])
        np.testing.assert_allclose(trace.x + trace.error_x.array, part["exact_high"])
        np.testing.assert_allclose(trace.y - trace.error_y.arrayminus, part["approximate_low"])
        np.testing.assert_array_equal(trace.customdata[:, 1:].astype(float)[:, 3], part["approximate_high"])
    assert figure.data[-1].customdata[3][0] == "1 head 1, all tokens"
    (said,) = figure.layout.annotations
    assert said.text.startswith("Pearson 0.871 [0.821, 0.891]<br>Spearman 0.713")
    assert "positive helps the label" in figure.layout.xaxis.title.text


def test_head_links_match_tables(links, correlations):
    figure = head_links(links, correlations)
    places = [(model, number) for model in ("receiver", "giver", "change") for number in ("distance", "entropy")]
    known = correlations.set_index(["model", "number"])
    for trace, title, (model, number) in zip(figure.data, figure.layout.annotations, places, strict=True):
        part = pick(links, model=model, number=number)
        np.testing.assert_array_equal(trace.x, part["value"])
        np.testing.assert_array_equal(trace.y, part["effect"])
        sure = (part["effect_low"] > 0) | (part["effect_high"] < 0)
        assert list(trace.marker.symbol) == ["circle" if own else "circle-open" for own in sure]
        row = known.loc[(model, number)]
        assert title.text == f"ρ {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    assert len({tuple(trace.marker.symbol) for trace in figure.data}) == 1
    assert figure.layout.xaxis5.title.text == "Δ attention distance (patches)"


def test_colours_have_a_dark_partner(summary, components, overall, links, correlations):
    for figure in (patching_map(summary), attribution_scatter(components, overall), head_links(links, correlations)):
        used = set(re.findall(r"#[0-9a-f]{6}", figure.update_layout(template=None).to_json()))
        assert len(used) > 3
        assert used <= set(DARK)


def test_missing_columns_and_rows_are_named(summary, components, overall, links, correlations):
    for draw, frame, column, more in (
        (patching_map, summary, "recovered_low", ()),
        (attribution_scatter, components, "exact_high", (overall,)),
        (head_links, links, "effect", (correlations,)),
    ):
        with pytest.raises(ValueError, match=rf"lacks {column}"):
            draw(frame.drop(columns=column), *more)
        with pytest.raises(ValueError, match="at least one row"):
            draw(frame.iloc[:0], *more)
    with pytest.raises(ValueError, match="patching_summary of calibration must have at least one row"):
        patching_map(summary, quantity="calibration")
