"""Rows of text on the page: Table 1, the SAEs' quality, the claims, and how a run was made."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from mechvit.visualization.report import html_tables as tables
from mechvit.visualization.report import provenance_rows as made
from mechvit.visualization.report.claims_table import claim_rows, number, summary, tally

BLUR = "gaussian_blur_4"


def test_table_one_by_hand():
    rows = [
        (model, BLUR, metric, value, value - 0.01, value + 0.03, 0.0, 0.0, 0.0)
        for model, values in (("base", (0.5, 0.7, 0.9, 0.05)), (BLUR, (0.6, 0.8, 0.85, 0.07)))
        for metric, value in zip(("accuracy", "top5", "top10", "ece"), values, strict=True)
    ]
    columns = ["model", "corruption", "metric", "value", "low", "high", "gain", "gain_low", "gain_high"]
    titles, (group,) = tables.table_one(pd.DataFrame(rows, columns=columns))
    assert titles == ["Top-1", "Top-5", "Top-10", "ECE"]
    assert group.title == "On Gaussian blur 4"
    assert [(model, title) for model, title, _ in group.rows] == [("base", "Base"), (BLUR, "Blur 4 tuned")]
    assert [cell.text for cell in group.rows[1][2]] == ["0.600", "0.800", "0.850", "0.070"]
    assert {cell.note for cell in group.rows[1][2]} == {"± 0.020"}
    assert [cell.best for cell in group.rows[1][2]] == [True, True, False, False]  # the lowest ECE is the best
    assert [cell.best for cell in group.rows[0][2]] == [False, False, True, True]


def test_table_one_of_few_classes_says_not_applicable():
    rows = [
        ("base", BLUR, metric, value, value, value, 0.0, 0.0, 0.0)
        for metric, value in zip(("accuracy", "top5", "top10", "ece"), (0.5, 0.7, None, 0.1), strict=True)
    ]
    columns = ["model", "corruption", "metric", "value", "low", "high", "gain", "gain_low", "gain_high"]
    _, (group,) = tables.table_one(pd.DataFrame(rows, columns=columns).astype({"value": float}))
    cells = group.rows[0][2]
    assert [cell.text for cell in cells] == ["0.500", "0.700", "n/a", "0.100"]
    assert [cell.best for cell in cells] == [True, True, False, True]


def test_sae_quality_by_hand():
    columns = ["model", "architecture", "corruption", "metric", "value"]
    rows = [
        (BLUR, "batchtopk", "clean", "l0", 31.96),
        ("base", "batchtopk", BLUR, "explained_variance", 0.8126),
        ("base", "batchtopk", BLUR, "l0", 33.04),
    ]
    titles, (group,) = tables.sae_quality(pd.DataFrame(rows, columns=columns))
    assert titles == ["Explained variance", "L0"]
    assert [(title, [cell.text for cell in cells]) for _, title, cells in group.rows] == [
        ("Base, on Gaussian blur 4", ["0.813", "33.0"]),
        ("Blur 4, on clean images", ["–", "32.0"]),
    ]


@pytest.mark.parametrize(
    ("make", "name"), [(tables.table_one, "performance_summary"), (tables.sae_quality, "sae_quality")]
)
def test_tables_name_what_they_lack(make, name):
    with pytest.raises(ValueError, match=rf"table {name} must have the columns .* lacks .*corruption"):
        make(pd.DataFrame({"model": ["base"]}))


def test_claims_show_the_deciding_measurement(run):
    rows = {row.id: row for row in claim_rows(run.claims)}
    better = rows["better_gaussian_blur"]
    assert [(p.label, p.number, p.decides) for p in better.parts] == [
        ("tuned on 1", "6.9 [4.8, 9.1]", True),
        ("tuned on 2", "11.2 [8.9, 13.6]", False),
        ("tuned on 4", "14.9 [12.8, 17.1]", False),
    ]
    assert better.what.startswith("Gain in accuracy over the base model on Gaussian blur 4, for each model")
    assert better.rule.startswith("Replicates if every 95% interval lies above 0")
    many = rows["no_transfer_gaussian_blur"]
    assert [(p.label, p.number) for p in many.parts] == [("accuracy tuned on 4", "−1.6 [−4.8, 1.2]")]
    assert len(many.folded) == 9
    unmeasured = rows["monotone_gaussian_noise"]
    assert [p.label for p in unmeasured.parts] == ["not measured: only one level of Gaussian noise was trained on"]
    assert (unmeasured.unit, unmeasured.rule) == ("", "")


def test_a_part_without_a_number_or_an_interval(run):
    (claim,) = (one for one in run.claims if one["id"] == "earlier_more_for_blur")
    nothing = {"value": None, "low": None, "high": None}
    parts = [*claim["parts"], {"label": "p", **nothing, "value": 0.012}, {"label": "no image", **nothing}]
    (row,) = claim_rows([{**claim, "parts": parts}])
    assert [part.number for part in row.parts] == ["0.21 [0.08, 0.34]", "0.012", "–"]
    (row,) = claim_rows([{**claim, "parts": parts, "decides": 2}])
    assert [part.decides for part in row.parts] == [False, False, True]
    assert (row.unit, row.source) == ("layers", "Section 4.2, Figures 5 and 6")


def test_numbers_have_three_digits_and_a_true_minus():
    assert number(-0.000123456, -1234.5, 9.87654e-05) == "−0.000123 [−1.23e+03, 9.88e−05]"


def test_tally_and_summary_count(run):
    assert [(verdict, count) for verdict, _, _, count in tally(run.claims)] == [
        ("replicates", 3),
        ("does not replicate", 1),
        ("inconclusive", 2),
    ]
    text = summary(run)
    assert "A base model and 6 copies of it" in text
    assert "severity of Gaussian blur and Gaussian noise" in text
    assert "on 60 held-out images" in text
    assert "6 claims judged here, 3 replicate, 1 does not, and 2 are inconclusive" in text


def test_configuration_is_exact(run):
    config = dict(made.rows(run.config))
    assert json.loads(config["finetuning.learning_rate"]) == run.config["finetuning"]["learning_rate"]
    assert json.loads(config["images.classes"]) == run.config["images"]["classes"]
    assert len(config) == 11
    assert made.rows({"a": {}, "b_bytes": 2**31, "c": None}) == [("a", "{}"), ("b", "2.00 GiB"), ("c", "null")]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (119.94, "119.9 s"), (133.9, "2 min 14 s"), (7260, "2 h 1 min")]
)
def test_duration(seconds, text):
    assert made.duration(seconds) == text


def test_provenance_totals(run):
    found = made.provenance(run)
    assert found["total"] == "4 min 27 s"  # 92.41 + 41.02 + 133.9
    assert found["peak"] == "2.24 GiB"  # 2.4e9 / 2**30
    assert [share for _, _, share, _ in found["stages"]] == [69.0, 30.6, 100.0]


def test_table_rows_match_files(run):
    for name, rows, columns in made.table_rows(run):
        frame = pd.read_parquet(run.path / "tables" / name)
        assert (rows, columns) == (f"{len(frame):,}", list(frame.columns))
    assert len(made.table_rows(run)) == 10
