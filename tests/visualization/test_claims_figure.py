"""The claims' figure shows every measurement, and every claim leads to a figure."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from mechvit.experiment.claims import claims as judge
from mechvit.visualization.claims_table import claim_effects
from mechvit.visualization.figures import claims_forest
from mechvit.visualization.report import bears_on
from mechvit.visualization.sections import CLAIMS, SECTIONS

PLOTS = [plot for section in SECTIONS for plot in section.plots]


def claim(**changes) -> dict:
    about = {
        "id": "better_blur", "claim": "It helps", "source": "Table 1", "unit": "points", "verdict": "replicates",
        "measured": "points: one 1.23 [0.5, 2]; two -3 [-4e-05, 5]", "value": 1.2345, "low": 0.5, "high": 2.0,
        "rule": "Gain. Replicates when every 95% interval lies above 0; does not when one lies wholly below 1 points.",
    }  # fmt: skip
    return about | changes


def test_effects_hold_every_part_and_the_deciding_one_exactly():
    frame = claim_effects([claim()])
    assert frame["part"].tolist() == ["one", "two"]
    assert frame[["value", "low", "high"]].to_numpy().tolist() == [[1.2345, 0.5, 2], [-3, -4e-5, 5]]
    assert frame["decides"].tolist() == [True, False]
    assert frame[["kind", "threshold"]].to_numpy().tolist() == [["effect", 1], ["effect", 1]]


@pytest.mark.parametrize(
    ("rule", "kind", "threshold"),
    [
        ("X. Replicates when every 95% interval lies within ±0.05 distance; does not ...", "no effect", 0.05),
        ("X. Replicates when its 95% interval lies within layers 3 to 6; does not ...", "other", np.nan),
    ],
)
def test_kinds_of_rules(rule, kind, threshold):
    frame = claim_effects([claim(rule=rule)])
    assert set(frame["kind"]) == {kind}
    np.testing.assert_equal(frame["threshold"].to_numpy(), threshold)


def test_an_unmeasured_claim_has_no_numbers():
    frame = claim_effects([claim(measured="not measured: one level", value=None, low=None, high=None)])
    assert frame[["value", "low", "high"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="measured ones"):
        claims_forest(frame)


def test_forest_draws_the_deciding_intervals(run):
    frame = claim_effects(run.claims)
    figure = claims_forest(frame)
    drawn = {}
    for trace in figure.data:
        if trace.marker.size == 9 and trace.x[0] is not None:
            for place, value in enumerate(trace.x):
                ends = (value - trace.error_x.arrayminus[place], value + trace.error_x.array[place])
                drawn[re.search(r"<b>(.*?)</b>", trace.customdata[place][0])[1]] = (value, *ends, trace.marker.color)
    measured = [c for c in run.claims if c["value"] is not None]
    assert len(drawn) == len(measured) == 5
    for one in measured:
        value, low, high, _ = drawn[one["claim"][:110]]
        assert (value, low, high) == pytest.approx((one["value"], one["low"], one["high"]))
    tints = {one["verdict"]: drawn[one["claim"][:110]][3] for one in measured}
    assert len(set(tints.values())) == len(tints) == 3
    points = sum(len(t.x) for t in figure.data if t.x[0] is not None)
    assert points == frame["value"].notna().sum() == 17
    axes = " ".join(axis.title.text for axis in figure.select_xaxes())
    assert "percentage points (above 0 = as claimed" in axes
    assert "within the shaded margin around 0 = as claimed" in axes
    assert "<img" not in figure.to_json().replace("\\u003c", "<")


def test_reading_counts():
    frame = claim_effects([claim(), claim(id="b", value=-1.0, low=-2.0, high=-0.5, measured="points: x -1 [-2, -0.5]")])
    assert CLAIMS.reading(frame) == [
        "3 measurements of 2 claims. Of 2 claimed effects, the weakest part lies above zero in 1 and below in 1."
    ]


def test_every_claim_of_the_experiment_leads_to_a_figure(planted_tables):
    found = judge(planted_tables)
    assert len(found) > 20
    for one in found:
        assert [plot.id for plot in PLOTS if bears_on(plot, one.id)], one.id
    starts = {start for plot in PLOTS for start in plot.claims}
    assert not [start for start in starts if not any(one.id.startswith(start) for one in found)]


@pytest.fixture(scope="module")
def planted_tables() -> dict[str, pd.DataFrame]:
    """Tables of two families at two levels, random: only the claims' ids matter here."""
    rng, models = np.random.default_rng(0), ["base", *(f"gaussian_{f}_{n}" for f in ("blur", "noise") for n in (1, 4))]
    corruptions = ["clean", *models[1:]]
    rows = pd.MultiIndex.from_product([models, corruptions, range(8)], names=["model", "corruption", "image_id"])
    base = rows.to_frame(index=False)
    performance = base.assign(
        label=0, prediction=0, rank=rng.integers(0, 12, len(base)), confidence=0.5, probability=0.5, loss=0.7
    )
    layers = base.merge(pd.DataFrame({"layer": range(4)}), how="cross")
    lens = layers.assign(probability=rng.random(len(layers)), correct=True)
    shift = layers[layers["corruption"] != "clean"]
    attention = shift.assign(entropy_difference=rng.normal(size=len(shift)), cosine=1.0, squared_difference=0.0)
    distance = pd.DataFrame(
        [
            (model, kind, model, name, 0.1, 0.05, 0.2)
            for model in ("gaussian_blur_4", "gaussian_noise_4")
            for kind in ("standard", "batchtopk")
            for name in ("wasserstein", "kolmogorov_smirnov")
        ],
        columns=["model", "architecture", "corruption", "statistic", "value", "low", "high"],
    )
    first = base.assign(layer=rng.integers(0, 4, len(base)))
    tables = {"performance": performance, "lens": lens, "first_correct": first, "attention": attention}
    return {**tables, "sae_distance": distance}
