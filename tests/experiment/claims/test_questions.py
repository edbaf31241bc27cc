"""The open questions: answers from intervals written out, and rows that the report can read."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from mechvit.experiment.claims.evidence import Rules
from mechvit.experiment.claims.open_questions import questions
from mechvit.visualization.report.claims_table import claim_rows

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
        ("median_blur_4", "group", *median),
        ("zoom_blur_4", "group", *zoom),
        ("shot_noise_4", "across", 0.2, 0.1, 0.3),
        (BLUR, "itself", 0.3, 0.2, 0.4),
    )
    (row,) = ask(related=table).values()
    assert row.verdict == answer
    assert row.deciding.value == pytest.approx(100 * min(median[0], zoom[0]))
    (shown,) = claim_rows([dataclasses.asdict(row)])
    parts = shown.folded or shown.parts
    assert [part.label for part in parts] == ["Median blur 4", "Zoom blur 4", "outside its family, Shot noise 4"]
    assert [part.value for part in row.parts] == pytest.approx([100 * median[0], 100 * zoom[0], 20], rel=1e-15)
    assert sum(part.decides for part in parts) == 1
    assert shown.what.startswith("Gain in accuracy")
    assert shown.rule.startswith("Yes if every 95% interval lies above 0")


def smallest(n: int, low: float) -> pd.DataFrame:
    path = [f"blocks.{i}.mlp" for i in range(n)]
    rows = [
        {
            "tuned_on": BLUR,
            "step": step,
            "images": part,
            "groups": " ".join(path[:step]),
            "of": 14,
            **numbers("recovered", 0.2 * step, low, 0.2 * step + 0.1),
        }
        for step in range(1, n + 1)
        for part in ("selection", "held_out")
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("n", "low", "answer"), [(7, 0.6, "yes"), (3, 0.55, "partly"), (7, 0.4, "unclear"), (8, 0.9, "no")]
)
def test_isolation_counts_parts_and_asks_held_out_images(n, low, answer):
    table = smallest(n, low)
    table.loc[table["images"] == "selection", "recovered_low"] = 0.99
    (row,) = ask(gain_smallest_set=table).values()
    assert row.verdict == answer
    assert row.parts[1].label.startswith("parts in the set, of 14: blocks.0.mlp, ")
    assert (row.parts[1].value, row.parts[1].low) == (n, None)
    assert (row.deciding.value, row.deciding.low) == (pytest.approx(0.2 * n), low)


def test_isolation_names_the_best_activation():
    columns = {"tuned_on": BLUR, "quantity": "logit_difference", "direction": "tuned into base"}
    rows = [
        columns | {"kind": kind, "layer": layer, "head": head, **numbers("recovered", value, value - 0.1, value + 0.1)}
        for kind, layer, head, value in (("resid", 6, -1, 1.0), ("mlp", 0, -1, 0.7), ("head", 2, 1, 0.75))
    ]
    rows.append(rows[-1] | {"direction": "base into tuned", "recovered": 0.9})
    (row,) = ask(gain_smallest_set=smallest(3, 0.6), gain_patching=pd.DataFrame(rows)).values()
    best = row.parts[-1]
    assert best.label.endswith("attention of block 2, head 1")
    assert (best.value, best.low, best.high) == (0.75, 0.65, 0.85)


HIGH, LOW, WIDE = (0.7, 0.6, 0.8), (0.1, 0.0, 0.3), (0.4, 0.2, 0.6)
BEATS, TIES, LOSES = (0.1, 0.05, 0.15), (0.02, -0.03, 0.07), (-0.1, -0.2, 0.0)


@pytest.mark.parametrize(
    ("mean", "sae", "answer"),
    [
        ((HIGH, BEATS), (HIGH, BEATS), "yes"),
        ((HIGH, BEATS), (HIGH, TIES), "partly"),
        ((HIGH, BEATS), (WIDE, BEATS), "partly"),
        ((LOW, BEATS), (LOW, BEATS), "no"),
        ((LOW, BEATS), (HIGH, LOSES), "no"),
        ((LOW, BEATS), (WIDE, BEATS), "unclear"),
        ((HIGH, TIES), (LOW, TIES), "unclear"),
    ],
)
def test_control_is_answered_by_the_share_recovered_beyond_random_directions(mean, sae, answer):
    rows = [
        {
            "tuned_on": NOISE,
            "quantity": "accuracy",
            "control": control,
            "source": source,
            **numbers("recovered", *(share if control == 0 else (0.3 * control, 0, 1))),
            **numbers("clean_change", -0.01, -0.02, 0.0),
            **numbers("beyond", *beyond),
        }
        for source, (share, beyond) in (("mean_difference", mean), ("sae", sae))
        for control in (0, 1, 2)
    ]
    (row,) = ask(gain_steering_chosen=pd.DataFrame(rows)).values()
    assert (row.id, row.verdict) == ("open_control_gaussian_noise", answer)
    parts = {part.label: (part.value, part.low, part.high) for part in row.parts}
    assert parts["points of change on clean images, SAE latents"] == (-1, -2, 0)
    assert parts["mean of random directions, mean difference"] == (pytest.approx(0.45), None, None)
    assert parts["points more than random directions, SAE latents"] == pytest.approx([100 * x for x in sae[1]])


@pytest.mark.parametrize(
    ("change", "beyond", "answer"),
    [
        ((0.02, 0.01, 0.03), (0.02, 0.01, 0.03), "yes"),
        ((0.02, -0.01, 0.03), (0.02, 0.01, 0.03), "unclear"),
        ((-0.02, -0.08, 0.004), (0.08, 0.03, 0.12), "no"),  # others harm more, but none of these helps
        ((0.02, 0.01, 0.03), (0.0, -0.01, 0.01), "unclear"),
    ],
)
def test_latents_are_answered_beyond_untouched_and_controls_and_of_the_base(change, beyond, answer):
    other = (-0.2, -0.3, -0.1)
    rows = [
        {
            "tuned_on": BLUR,
            "model": model,
            "corruption": corruption,
            "kind": kind,
            "quantity": "accuracy",
            "n": n,
            **numbers("change", *(change if asked else other)),
            **numbers("beyond", *(beyond if asked else other)),
        }
        for model in ("base", "tuned")
        for corruption in ("clean", BLUR)
        for kind in ("sensitive", "control")
        for n in (1, 16, 64)
        for asked in [(model, corruption, n) == ("base", BLUR, 16)]
    ]
    (row,) = ask(gain_ablation=pd.DataFrame(rows)).values()
    assert row.verdict == answer
    assert "with 16 of these latents ablated" in row.what
    assert row.deciding.value == pytest.approx(100 * min(change[0], beyond[0]))


@pytest.mark.parametrize(
    ("ends", "p", "answer"),
    [
        ((0.1, 0.6), 0.01, "yes"),
        ((0.1, 0.6), 0.2, "unclear"),
        ((-0.6, -0.1), 0.01, "no"),
        ((-0.6, -0.1), 0.2, "unclear"),
        ((-0.2, 0.4), 0.01, "unclear"),
    ],
)
def test_heads_are_answered_by_sign_interval_and_permutations(ends, p, answer):
    row = {"tuned_on": BLUR, "model": "size of change", "number": "entropy_difference", "heads": 36}
    row |= {"value": sum(ends) / 2, "low": ends[0], "high": ends[1], "p": p}
    misleading = {"low": 0.9, "high": 1.0, "p": 0.0001}
    table = pd.DataFrame([row, row | {"number": "distance"} | misleading, row | {"model": "change"} | misleading])
    (found,) = ask(gain_head_correlations=table).values()
    assert found.verdict == answer
    assert (found.parts[1].label, found.parts[1].value, found.decides) == ("p over heads", p, 0)


def test_what_was_not_measured_is_left_out():
    assert questions({}, RULES) == []
    nothing = pd.DataFrame(columns=["tuned_on", "step", "images", "groups", "of"])
    assert ask(gain_smallest_set=nothing) == {}
