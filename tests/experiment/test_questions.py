"""The open questions: answers from intervals written out, and rows that the report can read."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from mechvit.experiment.evidence import Rules
from mechvit.experiment.questions import questions
from mechvit.visualization.claims_table import claim_rows

BLUR, NOISE = "gaussian_blur_4", "gaussian_noise_4"
RULES = Rules()


def ask(**tables: pd.DataFrame) -> dict[str, object]:
    return {row.id: row for row in questions(tables, RULES)}


def numbers(name: str, value: float, low: float, high: float) -> dict[str, float]:
    ends = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return dict(zip((name, *ends), (value, low, high), strict=True))


def related(*gains: tuple[str, str, float, float, float]) -> pd.DataFrame:
    rows = [
        {"trained_on": BLUR, "tested_on": key, "relation": relation, **numbers("gain", *gain)}
        for key, relation, *gain in gains
    ]
    base = {"trained_on": "base", "tested_on": "clean", "relation": "base", **numbers("gain", 0, 0, 0)}
    return pd.DataFrame([base, *rows])


@pytest.mark.parametrize(
    ("median", "zoom", "answer"),
    [
        ((0.05, 0.02, 0.08), (0.03, 0.01, 0.05), "yes"),
        ((0.05, 0.02, 0.08), (0.01, -0.01, 0.03), "partly"),
        ((0.0, -0.02, 0.005), (-0.03, -0.05, -0.01), "no"),
        ((0.01, -0.02, 0.03), (0.01, -0.01, 0.03), "unclear"),
    ],
)
def test_transfer_is_answered_by_the_intervals(median, zoom, answer):
    table = related(
        ("median_blur_4", "group", *median), ("zoom_blur_4", "group", *zoom),
        ("shot_noise_4", "across", 0.2, 0.1, 0.3), (BLUR, "itself", 0.3, 0.2, 0.4),
    )  # fmt: skip
    (row,) = ask(related=table).values()
    assert row.verdict == answer
    assert row.value == pytest.approx(100 * min(median[0], zoom[0]))
    (shown,) = claim_rows([dataclasses.asdict(row)])
    parts = shown.folded or shown.parts
    assert [part.label for part in parts] == ["Median blur 4", "Zoom blur 4", "outside its family, Shot noise 4"]
    assert [part.number.split(" ")[0] for part in parts][2] == "20"
    assert sum(part.decides for part in parts) == 1
    assert shown.what.startswith("Gain in accuracy")
    assert shown.rule.startswith("Yes when every 95% interval lies above 0")


def smallest(n: int, low: float) -> pd.DataFrame:
    path = [f"blocks.{i}.mlp" for i in range(n)]
    rows = [
        {"tuned_on": BLUR, "step": step, "images": part, "groups": " ".join(path[:step]), "of": 14,
         **numbers("recovered", 0.2 * step, low, 0.2 * step + 0.1)}
        for step in range(1, n + 1)
        for part in ("selection", "held_out")
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("n", "low", "answer"), [(7, 0.6, "yes"), (7, 0.4, "unclear"), (8, 0.9, "no")])
def test_isolation_counts_parts_and_asks_held_out_images(n, low, answer):
    table = smallest(n, low)
    table.loc[table["images"] == "selection", "recovered_low"] = 0.99
    (row,) = ask(gain_smallest_set=table).values()
    assert row.verdict == answer
    assert f"{n} of 14 parts: blocks.0.mlp, " in row.measured
    assert (row.value, row.low) == (pytest.approx(0.2 * n), low)


def test_isolation_names_the_best_activation():
    columns = {"tuned_on": BLUR, "quantity": "logit_difference", "direction": "tuned into base"}
    rows = [
        columns | {"kind": kind, "layer": layer, "head": head, **numbers("recovered", value, value - 0.1, value + 0.1)}
        for kind, layer, head, value in (("resid", 6, -1, 1.0), ("mlp", 0, -1, 0.7), ("head", 2, 1, 0.75))
    ]
    rows.append(rows[-1] | {"direction": "base into tuned", "recovered": 0.9})
    (row,) = ask(gain_smallest_set=smallest(3, 0.6), gain_patching=pd.DataFrame(rows)).values()
    assert "attention of block 2, head 1: 0.75 [0.65, 0.85]" in row.measured


@pytest.mark.parametrize(
    ("mean", "sae", "answer"),
    [
        ((0.7, 0.6, 0.8), (0.9, 0.6, 1.1), "yes"),
        ((0.7, 0.6, 0.8), (0.4, 0.2, 0.6), "partly"),
        ((0.1, 0.0, 0.3), (0.2, 0.0, 0.4), "no"),
        ((0.1, 0.0, 0.3), (0.4, 0.2, 0.6), "unclear"),
    ],
)
def test_control_is_answered_by_the_share_recovered(mean, sae, answer):
    rows = [
        {"tuned_on": NOISE, "quantity": "accuracy", "control": control, "source": source,
         **numbers("recovered", *share), **numbers("clean_change", -0.01, -0.02, 0.0)}
        for source, share in (("mean_difference", mean), ("sae", sae))
        for control in (0, 1)
    ]  # fmt: skip
    (row,) = ask(gain_steering_chosen=pd.DataFrame(rows)).values()
    assert (row.id, row.verdict) == ("open_control_gaussian_noise", answer)
    assert "change on clean images in points, SAE latents -1 [-2, 0]" in row.measured


def test_latents_are_answered_beyond_controls_and_of_the_base():
    rows = [
        {"tuned_on": BLUR, "model": model, "corruption": corruption, "kind": kind, "quantity": "accuracy", "n": n,
         **numbers("beyond", *((0.02, 0.01, 0.03) if (model, corruption) == ("base", BLUR) else (-0.2, -0.3, -0.1)))}
        for model in ("base", "tuned") for corruption in ("clean", BLUR) for kind in ("sensitive", "control")
        for n in (1, 4)
    ]  # fmt: skip
    (row,) = ask(gain_ablation=pd.DataFrame(rows)).values()
    assert row.verdict == "yes"
    assert row.measured == "percentage points: 1 latents 2 [1, 3]; 4 latents 2 [1, 3]"


@pytest.mark.parametrize(("ends", "answer"), [((-0.6, -0.1), "yes"), ((-0.2, 0.4), "unclear")])
def test_heads_are_answered_by_the_correlation(ends, answer):
    row = {"tuned_on": BLUR, "model": "change", "number": "entropy_difference", "heads": 36, "value": -0.3}
    table = pd.DataFrame([row | {"low": ends[0], "high": ends[1]}, row | {"number": "distance", "low": 1, "high": 1}])
    (found,) = ask(gain_head_correlations=table).values()
    assert found.verdict == answer


def test_what_was_not_measured_is_left_out():
    assert questions({}, RULES) == []
    nothing = pd.DataFrame(columns=["tuned_on", "step", "images", "groups", "of"])
    assert ask(gain_smallest_set=nothing) == {}
