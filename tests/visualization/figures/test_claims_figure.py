"""The claims' figure shows every measurement, and every claim leads to a figure."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest

from mechvit.experiment.claims.paper_claims import claims as judge
from mechvit.visualization.figures import claims_forest
from mechvit.visualization.html_page.csv_text import csv_text
from mechvit.visualization.report.claims_table import claim_effects, claim_rows
from mechvit.visualization.report.report_page import bears_on
from mechvit.visualization.report.sections import CLAIMS, SECTIONS

SPECS = [spec for section in SECTIONS for spec in section.figures]


def claim(*parts: tuple, **changes) -> dict:
    about = {
        "id": "better_blur",
        "claim": "It helps",
        "source": "Table 1",
        "what": "Gain",
        "unit": "points",
        "kind": "effect",
        "threshold": 1.0,
        "rule": "Replicates when.",
        "decides": 0,
        "verdict": "replicates",
        "parts": [dict(zip(("label", "value", "low", "high"), part, strict=True)) for part in parts],
    }
    return about | changes


ONE, TWO = ("one", 1.2345678901, 0.5, 2.0), ("two", -3.14159265, -4.00000001e-5, 5.0)


def test_effects_hold_every_part_exactly():
    frame = claim_effects([claim(ONE, TWO)])
    assert frame["part"].tolist() == ["one", "two"]
    assert frame[["value", "low", "high"]].to_numpy().tolist() == [list(ONE[1:]), list(TWO[1:])]
    assert frame["decides"].tolist() == [True, False]
    assert frame[["kind", "threshold"]].to_numpy().tolist() == [["effect", 1], ["effect", 1]]
    read = pd.read_csv(io.StringIO(csv_text(frame)))
    pd.testing.assert_frame_equal(read[["value", "low", "high"]], frame[["value", "low", "high"]], check_exact=True)


def test_words_are_shown_and_never_read():
    """Whatever the texts of a claim say, its numbers, rule and verdict are those of its fields."""
    lie = "points: one 9 [8, 9.5]; two 7 [6, 7.5]. Replicates when every interval lies within ±0.5; lies above 0; "
    words = {name: f"{lie}{name}" for name in ("claim", "source", "what", "rule", "unit")}
    lying = claim((f"{lie}a", *ONE[1:]), (f"{lie}b", *TWO[1:]), decides=1, **words)
    frame = claim_effects([lying])
    plain = claim_effects([claim(ONE, TWO, decides=1)])
    told = ["claim", "source", "part", "unit"]
    pd.testing.assert_frame_equal(frame.drop(columns=told), plain.drop(columns=told))
    (row,), (other,) = claim_rows([lying]), claim_rows([claim(ONE, TWO, decides=1)])
    assert [part[1:] for part in row.parts] == [part[1:] for part in other.parts]
    assert [part.label for part in row.parts] == [f"{lie}a", f"{lie}b"]
    assert (row.claim, row.what, row.rule, row.unit) == tuple(words[n] for n in ("claim", "what", "rule", "unit"))
    assert row.style == "yes"


def test_an_unmeasured_claim_has_no_numbers():
    frame = claim_effects([claim(("not measured: one level", None, None, None), decides=None, threshold=None)])
    assert frame[["value", "low", "high", "threshold"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="measured ones"):
        claims_forest(frame)


@pytest.mark.long
def test_forest_draws_the_deciding_intervals(run):
    frame = claim_effects(run.claims)
    figure = claims_forest(frame)
    drawn = {}
    for trace in figure.data:
        if trace.marker.size == 9 and trace.x[0] is not None:
            for place, value in enumerate(trace.x):
                ends = (value - trace.error_x.arrayminus[place], value + trace.error_x.array[place])
                drawn[re.search(r"<b>(.*?)</b>", trace.customdata[place][0])[1]] = (value, *ends, trace.marker.color)
    measured = [c for c in run.claims if c["decides"] is not None]
    assert len(drawn) == len(measured) == 5
    for one in measured:
        value, low, high, _ = drawn[one["claim"][:110]]
        part = one["parts"][one["decides"]]
        assert (value, low, high) == pytest.approx((part["value"], part["low"], part["high"]))
    tints = {one["verdict"]: drawn[one["claim"][:110]][3] for one in measured}
    assert len(set(tints.values())) == len(tints) == 3
    points = sum(len(t.x) for t in figure.data if t.x[0] is not None)
    assert points == frame["value"].notna().sum() == 17
    axes = " ".join(axis.title.text for axis in figure.select_xaxes())
    assert "percentage points (above 0 = as claimed" in axes
    assert "within the shaded margin around 0 = as claimed" in axes
    assert "<img" not in figure.to_json().replace("\\u003c", "<")


def test_reading_counts():
    frame = claim_effects([claim(ONE, TWO), claim(("x", -1.0, -2.0, -0.5), id="b")])
    assert CLAIMS.reading(frame) == [
        "3 measurements for 2 claims. 2 claim an effect: the interval of the weakest measurement lies above zero in 1 "
        "and below zero in 1."
    ]


def test_every_claim_of_the_experiment_leads_to_a_figure(planted_tables):
    found = judge(planted_tables)
    assert len(found) > 20
    for one in found:
        assert [spec.id for spec in SPECS if bears_on(spec, one.id)], one.id
    starts = {start for spec in SPECS for start in spec.claims}
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
