"""Claims judged on tables whose truth is planted: true, false, and impossible to tell."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from planted import BLUR, LAYERS, LEVELS, NOISE, Oracle, change, plant_tables

from mechvit.experiment import Claim, Rules, claims
from mechvit.experiment.claims.evidence import Measurement

YES, NO, OPEN = "replicates", "does not replicate", "inconclusive"
RULES = Rules(resamples=500)
TWO_LEVELS = dict.fromkeys(LEVELS, (1, 4))
EACH_FAMILY = (
    "better",
    "monotone",
    "ordering",
    "no_transfer",
    "clean_unchanged",
    "certainty",
    "overtakes",
    "earlier",
    "entropy_sign",
    "sae_cosine_standard",
    "sae_cosine_batchtopk",
)
IDS = {f"{name}_{family}" for name in EACH_FAMILY for family in LEVELS} | {
    "earlier_more_for_blur",
    "entropy_blur",
    "entropy_noise",
}

DROP = (-0.1, -0.1, -0.1)
ALL_FALSE = {
    "gains": ((0.02, 0.1, 0.2), (-0.05, 0.05, 0.15), (-0.1, 0.0, 0.1)),
    "elsewhere": DROP,
    "clean": DROP,
    "certainty": -0.1,
    "lead": (0.1,) * (LAYERS + 1),
    "earlier": 0.0,
    "sign": (0.2, 0.2, 0.0, -0.1, -0.1, -0.1),
    "gap": (-0.1,) * LAYERS,
    "distance": (0.2, 0.15, 0.25),
}
NOTHING = (0.0, 0.0, 0.0)
ALL_OPEN = {
    "gains": (NOTHING,) * 3,
    "certainty": 0.0,
    "lead": (0.01,) * (LAYERS + 1),
    "sign": (0.0,) * LAYERS,
    "gap": (0.0,) * LAYERS,
    "distance": (0.1, 0.05, 0.15),
}
LOOSE = ("gains", "elsewhere", "clean", "certainty", "lead", "earlier", "sign")
BETTER_NO = ((-0.1, -0.2, -0.28), (0.25, 0.1, 0.0))
MONOTONE_NO = ((0.36, 0.2, 0.08), (0.12, 0.06, 0.02))
ORDERING_NO = ((0.02, 0.1, 0.16), (0.12, 0.24, 0.32))
TOO_EARLY = (-0.05, -0.05, 0.1, 0.1, 0.1, 0.1, 0.1)
HALFWAY = (-0.05, -0.05, -0.05, 0.1, 0.1, 0.1, 0.1)
NEVER = (0.2, 0.2, 0.2, 0.2, 0.2, 0.2, -0.1)

# what is planted in one family -> the claims whose verdicts it turns, and into what
TURNS = [
    ({"gains": BETTER_NO}, {"better": NO}, None),
    ({"gains": ((0.01, 0.005, 0.0), (0.24, 0.13, 0.05))}, {"better": OPEN}, None),
    ({"gains": MONOTONE_NO}, {"monotone": NO}, None),
    ({"gains": ORDERING_NO}, {"ordering": NO}, None),
    ({"elsewhere": (0.1, 0.0, 0.0)}, {"no_transfer": NO}, None),
    ({"elsewhere": (0.0, 0.0, -0.1)}, {"no_transfer": NO}, None),
    ({"elsewhere": NOTHING}, {"no_transfer": OPEN}, "elsewhere"),
    ({"clean": (0.0, -0.1, 0.0)}, {"clean_unchanged": NO}, None),
    ({"clean": NOTHING}, {"clean_unchanged": OPEN}, "clean"),
    ({"certainty": -0.02}, {"certainty": NO}, None),
    ({"certainty": 0.01}, {"certainty": OPEN}, "certainty"),
    ({"lead": TOO_EARLY}, {"overtakes": NO}, None),
    ({"lead": HALFWAY}, {}, None),
    ({"lead": NEVER}, {"overtakes": NO}, None),
    ({"lead": (0.01,) * (LAYERS + 1)}, {"overtakes": OPEN}, "lead"),
    ({"sign": (0.1, 0.1, 0.1, 0.2, 0.2, 0.2)}, {"entropy_sign": NO}, None),
    ({"sign": (-0.1, 0.1, 0.1, -0.2, -0.2, -0.2)}, {"entropy_sign": NO}, None),
    ({"distance": (0.2, 0.15, 0.25)}, {"sae_cosine_standard": NO, "sae_cosine_batchtopk": NO}, None),
    ({"distance": (0.1, 0.05, 0.15)}, {"sae_cosine_standard": OPEN, "sae_cosine_batchtopk": OPEN}, None),
]


def judge(tables: dict[str, pd.DataFrame], rules: Rules = RULES) -> dict[str, Claim]:
    rows = claims(tables, rules)
    assert len({row.id for row in rows}) == len(rows)
    return {row.id: row for row in rows}


def verdicts(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    return {name: row.verdict for name, row in judge(tables).items()}


@pytest.fixture(scope="module")
def true() -> dict[str, pd.DataFrame]:
    return plant_tables()


@pytest.fixture(scope="module")
def judged(true) -> dict[str, Claim]:
    return judge(true)


def test_all_claims_of_the_paper_are_there_and_replicate_where_true(judged):
    assert judged.keys() == IDS
    assert {name: row.verdict for name, row in judged.items()} == dict.fromkeys(IDS, YES)


def test_every_claim_fails_where_false():
    found = verdicts(plant_tables(change(BLUR, **ALL_FALSE), change(NOISE, **ALL_FALSE)))
    assert found == dict.fromkeys(IDS, NO)


@pytest.mark.long
def test_every_claim_is_open_where_the_data_cannot_tell():
    loose = (change(plant, *LOOSE, **ALL_OPEN) for plant in (BLUR, NOISE))
    assert verdicts(plant_tables(*loose)) == dict.fromkeys(IDS, OPEN)


@pytest.mark.long
@pytest.mark.parametrize(("planted", "turned", "loose"), TURNS)
@pytest.mark.parametrize("family", LEVELS)
def test_one_planted_change_turns_its_own_claims_only(planted, turned, loose, family):
    plants = {"gaussian_blur": BLUR, "gaussian_noise": NOISE}
    plants[family] = change(plants[family], *filter(None, [loose]), **planted)
    found = verdicts(plant_tables(*plants.values(), levels=TWO_LEVELS))
    expected = {f"{name}_{family}": verdict for name, verdict in turned.items()}
    assert {name: verdict for name, verdict in found.items() if verdict != YES} == expected


@pytest.mark.parametrize(
    ("blur", "noise", "expected"),
    [
        (change(BLUR, gap=(-0.1,) * LAYERS), NOISE, {"entropy_blur": NO}),
        (BLUR, change(NOISE, gap=(0.0,) * LAYERS), {"entropy_noise": NO}),
        (BLUR, change(NOISE, gap=(0.1,) * LAYERS), {"entropy_noise": NO}),
        (change(BLUR, earlier=0.4), NOISE, {"earlier_more_for_blur": NO}),
        (change(BLUR, earlier=0.0), NOISE, {"earlier_gaussian_blur": NO, "earlier_more_for_blur": NO}),
        (BLUR, change(NOISE, earlier=0.0), {"earlier_gaussian_noise": NO}),
        (BLUR, change(NOISE, "earlier"), {"earlier_gaussian_noise": OPEN}),
    ],
)
def test_claims_across_families_turn(blur, noise, expected):
    found = verdicts(plant_tables(blur, noise, levels=TWO_LEVELS))
    assert {name: verdict for name, verdict in found.items() if verdict != YES} == expected


@pytest.mark.parametrize("plants", [(BLUR, NOISE), (change(BLUR, **ALL_FALSE), change(NOISE, **ALL_FALSE))])
def test_numbers_match_plain_means_and_explicit_resampling(plants):
    tables = plant_tables(*plants, seed=3)
    found, oracle = judge(tables, Rules(resamples=2000)), Oracle(tables)
    chosen = oracle.resamples()
    compared = 0
    for name, parts in oracle.parts().items():
        bootstraps = [oracle.bootstrap(part, chosen) for part in parts]
        no_effect = name.startswith(("no_transfer", "clean_unchanged"))
        pick = (lambda b: -abs(b[0])) if no_effect else (lambda b: b[0])
        value, low, high = min(bootstraps, key=pick)
        row = found[name]
        assert row.deciding.value == pytest.approx(value, abs=1e-6), name
        equals = [b for b in bootstraps if pick(b) == pytest.approx(pick((value, low, high)), abs=1e-9)]
        assert np.isfinite([value, low, high]).all()
        slack = 0.1 * (high - low) + 1e-6
        assert any(abs(row.deciding.low - b[1]) < slack and abs(row.deciding.high - b[2]) < slack for b in equals), name
        compared += 1
    assert compared == len(IDS) - 2 - 4, "all but overtakes and the SAEs'"


@pytest.mark.long
def test_onset_matches_a_loop_over_layers():
    loose = change(BLUR, "lead", lead=(-0.1, -0.1, -0.05, 0.03, 0.05, 0.1, 0.1))
    tables = plant_tables(loose)
    row, oracle = judge(tables, Rules(resamples=2000))["overtakes_gaussian_blur"], Oracle(tables)
    draws = [oracle.onset("gaussian_blur", rows) for rows in oracle.resamples(150)]
    assert row.deciding.value == oracle.onset("gaussian_blur")
    assert row.deciding.low == np.quantile(draws, 0.025)
    assert row.deciding.high == np.quantile(draws, 0.975)
    assert row.deciding.low < row.deciding.high


def test_sae_rows_pass_the_table_s_interval_on(judged):
    row = judged["sae_cosine_batchtopk_gaussian_noise"]
    wasserstein, distance = row.parts
    assert wasserstein == Measurement("wasserstein", 0.012, 0.01, 0.015)
    assert row.deciding is distance
    assert distance == Measurement("kolmogorov smirnov", 0.02, 0.01, 0.03)


def test_every_part_is_named(judged):
    labels = {name: [part.label for part in row.parts] for name, row in judged.items()}
    assert labels["better_gaussian_blur"] == ["tuned on 1", "tuned on 2", "tuned on 4"]
    assert len(set(labels["no_transfer_gaussian_blur"])) == 9
    assert labels["monotone_gaussian_noise"] == ["2 over 1", "4 over 2"]
    assert judged["better_gaussian_blur"].parts[0].value == pytest.approx(12)


def test_every_rule_s_kind_and_threshold(judged):
    found = {(row.kind, row.threshold, row.unit) for row in judged.values()}
    assert found == {
        ("effect", RULES.smallest_gain, "percentage points"),
        ("effect", RULES.smallest_shift, "layers"),
        ("effect", RULES.smallest_entropy, "nats"),
        ("no effect", RULES.unchanged, "percentage points"),
        ("no effect", RULES.identical, "distance, 0 to 1"),
        ("other", None, "layers"),
    }
    assert {name for name, row in judged.items() if row.kind == "other"} == {f"overtakes_{f}" for f in LEVELS}
    for row in judged.values():
        assert row.threshold is None or f"{row.threshold:g} ({row.unit})" in row.rule


def test_thresholds_are_the_rules(true):
    wide = judge(true, Rules(resamples=200, identical=0.01, unchanged=0.0))
    assert wide["sae_cosine_standard_gaussian_blur"].verdict == OPEN
    assert "±0.01 (distance" in wide["sae_cosine_standard_gaussian_blur"].rule
    narrow, broad = (judge(true, Rules(resamples=500, level=level))["better_gaussian_blur"] for level in (0.5, 0.99))
    assert broad.deciding.low < narrow.deciding.low < narrow.deciding.value < narrow.deciding.high < broad.deciding.high
    assert "99%" in broad.rule


def test_rows_hold_for_json(judged):
    text = json.dumps([asdict(row) for row in judged.values()], allow_nan=False)
    assert {row["id"] for row in json.loads(text)} == IDS
    assert all(row.claim and row.source.startswith("section") and row.rule and row.unit for row in judged.values())


def test_verdicts_do_not_depend_on_row_order(true, judged):
    shuffled = {name: frame.sample(frac=1, random_state=1) for name, frame in true.items() if name != "sae_distance"}
    assert judge({**shuffled, "sae_distance": true["sae_distance"]}) == judged


def test_one_family_and_one_level_leave_claims_unmeasured():
    found = judge(plant_tables(levels={"gaussian_blur": (4,)}, blur=change(BLUR, gains=BLUR.gains[:1])))
    unmeasured = {name for name, row in found.items() if row.parts[0].label.startswith("not measured")}
    assert unmeasured == {"monotone_gaussian_blur", "no_transfer_gaussian_blur", "earlier_more_for_blur"}
    for name in unmeasured:
        assert (found[name].decides, found[name].deciding.value, found[name].verdict) == (None, None, OPEN)
    assert found.keys() == {name for name in IDS if "noise" not in name}
    assert all(found[name].verdict == YES for name in found.keys() - unmeasured)
    json.dumps([asdict(row) for row in found.values()], allow_nan=False)


def test_sae_of_a_model_that_is_not_there_is_unmeasured(true):
    distance = true["sae_distance"]
    kept = distance[~((distance["architecture"] == "standard") & (distance["model"] == "gaussian_noise_4"))]
    found = judge({**true, "sae_distance": kept})
    assert found["sae_cosine_standard_gaussian_noise"].deciding.label == (
        "not measured: there is no standard SAE of the model tuned on Gaussian noise 4"
    )
    assert found["sae_cosine_batchtopk_gaussian_noise"].verdict == YES


def test_no_image_that_both_get_right_decides_nothing(true):
    first = true["first_correct"]
    odd = first["image_id"] % 2 == 1
    apart = first[odd == (first["model"] == "base")]
    found = judge({**true, "first_correct": apart})
    assert (found["earlier_gaussian_blur"].verdict, found["earlier_gaussian_blur"].deciding.value) == (OPEN, None)
    assert found["earlier_more_for_blur"].deciding.value is None
    json.dumps([asdict(row) for row in found.values()], allow_nan=False)


@pytest.mark.parametrize("right_nowhere", [["base"], ["gaussian_blur_2"], ["base", "gaussian_blur_2"], None])
def test_a_model_that_is_right_nowhere_decides_nothing(true, right_nowhere):
    first = true["first_correct"]
    kept = first.iloc[:0] if right_nowhere is None else first[~first["model"].isin(right_nowhere)]
    found = judge({**true, "first_correct": kept})
    assert (found["earlier_gaussian_blur"].verdict, found["earlier_gaussian_blur"].deciding.value) == (OPEN, None)
    assert found["better_gaussian_blur"].verdict == YES


def test_what_is_missing_is_named(true):
    with pytest.raises(ValueError, match="attention, sae_distance are missing"):
        claims({name: true[name] for name in ("performance", "lens", "first_correct")})
    performance = true["performance"]
    for models in (["gaussian_blur_1", "gaussian_blur_4"], ["base"]):
        kept = performance[performance["model"].isin(models)]
        with pytest.raises(ValueError, match="compare 'base' with tuned models"):
            claims({**true, "performance": kept})
    lacking = performance[~((performance["model"] == "gaussian_blur_2") & (performance["corruption"] == "clean"))]
    with pytest.raises(ValueError, match="lack the model 'gaussian_blur_2' under 'clean'"):
        claims({**true, "performance": lacking}, RULES)
    attention = true["attention"]
    with pytest.raises(ValueError, match="lack the model 'base' under 'gaussian_noise_4'"):
        claims({**true, "attention": attention[attention["corruption"] != "gaussian_noise_4"]}, RULES)
    with pytest.raises(ValueError, match=r"for all 300 images.*lacks 1"):
        claims({**true, "performance": performance.drop(index=5)}, RULES)


def test_top_k_of_few_classes_decides_nothing():
    """With 8 classes, top-10 counts every label: the ordering is not measured, and no claim rests on it."""
    tables = plant_tables()
    tables = tables | {"performance": tables["performance"].assign(classes=8)}
    rows = {row.id: row for row in claims(tables, RULES)}
    ordering = rows["ordering_gaussian_blur"]
    assert ordering.deciding.label == "not measured: top10 is not defined with so few classes"
    assert (ordering.deciding.value, ordering.verdict) == (None, OPEN)
    clean = rows["clean_unchanged_gaussian_blur"]
    assert {part.label for part in clean.parts} == {
        f"{m} tuned on {n}" for m in ("accuracy", "top5") for n in (1, 2, 4)
    }
    assert not [part for row in rows.values() for part in row.parts if row.decides is not None and part.value is None]
