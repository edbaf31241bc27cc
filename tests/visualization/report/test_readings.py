"""Sentences against numbers worked out by hand on frames of a few rows."""

from __future__ import annotations

import pandas as pd
import pytest

from mechvit.visualization.number_format import interval, listing, signed
from mechvit.visualization.report import captions as readings
from mechvit.visualization.report.sections import SECTIONS

BLUR, OTHER = "gaussian_blur_4", "gaussian_noise_4"


def performance(rows) -> pd.DataFrame:
    columns = ["model", "corruption", "metric", "value", "gain", "gain_low", "gain_high"]
    return pd.DataFrame(rows, columns=columns).assign(low=0.0, high=1.0)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1.25, 1, "+1.2"), (-0.44, 1, "−0.4"), (-0.04, 1, "0.0"), (0.0, 2, "0.00"), (10.0, 0, "+10")],
)
def test_signed(value, digits, text):
    assert signed(value, digits) == text


def test_interval_and_listing():
    assert interval(-0.44, 1.21) == "−0.4 to +1.2"
    assert [listing(list(names)) for names in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


def test_table_one_by_hand():
    frame = performance(
        [
            ("base", BLUR, "accuracy", 0.5, None, None, None),
            ("base", BLUR, "ece", 0.08, None, None, None),
            (BLUR, BLUR, "accuracy", 0.625, 0.125, 0.1, 0.151),
            (BLUR, BLUR, "ece", 0.05, -0.03, -0.04, -0.02),
        ]
    )
    (text,) = readings.table_one(frame)
    assert "classifies 50.0% of the images correctly and the model tuned on it 62.5%" in text
    assert "a change of +12.5 points (+10.0 to +15.1)" in text
    assert "is 0.080 in the base and 0.050 in the tuned model" in text


@pytest.mark.parametrize(("second", "word"), [(0.12, "rises with"), (0.04, "does not rise with")])
def test_gains_by_hand(second, word):
    weak = "gaussian_blur_2"
    rows = [(weak, BLUR, "accuracy", 0.5, 0.05, 0, 0), (BLUR, BLUR, "accuracy", 0.5, second, 0, 0)]
    rows += [(BLUR, BLUR, "top5", 0.5, 0.06, 0, 0), (BLUR, BLUR, "top10", 0.5, 0.07, 0, 0)]
    (text,) = readings.gains(performance(rows))
    assert f"changes top-1 accuracy by +5.0 and {signed(100 * second)} points; the gain {word}" in text
    order = ["top-1", "top-10", "top-5"] if second == 0.12 else ["top-10", "top-5", "top-1"]
    places = [text.index(f"{name} (") for name in order]
    assert places == sorted(places)


def test_gains_of_few_classes_leave_out_what_is_not_applicable():
    rows = [(BLUR, BLUR, "accuracy", 0.5, 0.05, 0, 0), (BLUR, BLUR, "top5", 0.5, 0.06, 0, 0)]
    rows += [(BLUR, BLUR, "top10", None, None, None, None)]
    (text,) = readings.gains(performance(rows))
    assert "it is largest in top-5 (+6.0), then top-1 (+5.0)." in text
    assert "top-10" not in text


def test_transfer_by_hand():
    rows = [
        ("base", BLUR, "accuracy", 0.5, None, None, None),
        (BLUR, BLUR, "accuracy", 0.6, 0.10, 0.05, 0.15),
        (OTHER, BLUR, "accuracy", 0.5, -0.02, -0.03, -0.01),
        (BLUR, OTHER, "accuracy", 0.5, 0.01, -0.01, 0.03),
        (OTHER, OTHER, "accuracy", 0.6, 0.20, 0.15, 0.25),
        (BLUR, "clean", "accuracy", 0.5, 0.004, -0.01, 0.01),
    ]
    (text,) = readings.transfer(performance(rows))
    own, other, clean = text.split("). ")
    assert "family that they were tuned on" in own
    assert "by +10.0 to +20.0 points (mean +15.0; intervals above zero: 2 of 2, below zero: 0" in own
    assert "other family" in other
    assert "by −2.0 to +1.0 points (mean −0.5; intervals above zero: 0 of 2, below zero: 1" in other
    assert "by +0.4 to +0.4 points (mean +0.4; intervals above zero: 0 of 1, below zero: 0" in clean


@pytest.mark.parametrize(
    ("tuned", "text"),
    [
        ([0.1, 0.5, 0.2, 0.6], "lies above the base's, with separate intervals, from layer 3 of 3"),
        ([0.1, 0.5, 0.6, 0.7], "lies above the base's, with separate intervals, from layer 1 of 3"),
        ([0.1, 0.5, 0.6, 0.31], "does not lie above the base's with separate intervals at the last layer, 3"),
    ],
)
def test_class_probability_overtakes_for_good(tuned, text):
    rows = [("base", BLUR, layer, 0.3, 0.28, 0.32) for layer in range(4)]
    rows += [(BLUR, BLUR, layer, value, value - 0.02, value + 0.02) for layer, value in enumerate(tuned)]
    frame = pd.DataFrame(rows, columns=["model", "corruption", "layer", "probability", "low", "high"])
    (said,) = readings.class_probability(frame.sample(frac=1, random_state=0))
    assert text in said
    assert f"At the last layer it is {tuned[-1]:.3f}, the base's 0.300" in said


def test_first_correct_by_hand():
    rows = [("base", BLUR, 0, 4), ("base", BLUR, 1, 5), (BLUR, BLUR, 0, 2), (BLUR, BLUR, 1, 3), (BLUR, BLUR, 2, 3)]
    first = pd.DataFrame(rows, columns=["model", "corruption", "image_id", "layer"])
    (text,) = readings.first_correct_layers(first)
    assert "on average 4.50 in the base (2 images) and 2.67 in the tuned model (3 images)" in text
    (text,) = readings.first_correct_layers(first[first["model"] != "base"])
    assert "right on no image" in text


def test_first_correct_difference_by_hand():
    columns = ["model", "corruption", "difference", "difference_low", "difference_high"]
    rows = [
        ("base", BLUR, None, None, None),
        ("gaussian_blur_1", "gaussian_blur_1", -0.1, -0.3, 0.1),
        (BLUR, BLUR, -0.5, -0.7, -0.3),
        ("gaussian_noise_2", "gaussian_noise_2", -0.2, -0.3, -0.1),
        (BLUR, OTHER, -9.0, -9.0, -9.0),
    ]
    (text,) = readings.first_correct_difference(pd.DataFrame(rows, columns=columns))
    assert "(earlier) for the models tuned on Blur 4 and Noise 2" in text
    assert "−0.50 layers (−0.70 to −0.30) for Blur 4 and −0.20 layers (−0.30 to −0.10) for Noise 2" in text
    nothing = pd.DataFrame([(BLUR, BLUR, None, None, None)], columns=columns)
    assert readings.first_correct_difference(nothing) == [
        "There is no image that both the base and a tuned model get right at some layer."
    ]


def attention(quantity, base, tuned) -> pd.DataFrame:
    rows = [(m, BLUR, layer, quantity, v) for m, vs in (("base", base), (BLUR, tuned)) for layer, v in enumerate(vs)]
    return pd.DataFrame(rows, columns=["model", "corruption", "layer", "quantity", "value"])


def test_entropy_difference_by_hand():
    (text,) = readings.entropy_difference(attention("entropy_difference", [-0.1, -0.02, 0.3], [-0.05, 0.0, 0.2]))
    assert "from −0.100 nats at layer 0 to +0.300 at layer 2" in text
    assert "negative in 2 of 3 layers, and the highest of all models in 1" in text
    assert "minus the base's is −0.010 nats" in text  # (.05 + .02 - .1) / 3


def test_pattern_change_by_hand():
    (text,) = readings.pattern_change(attention("cosine", [0.9, 0.7, 0.8], [0.95, 0.75, 0.6]))
    assert "changes most at layer 1 (cosine 0.700)" in text
    assert "has a cosine of 0.750 there and changes less than the base's in 2 of 3 layers" in text


def test_sae_readings_by_hand():
    rows = [("base", 0.5), ("base", 0.7), (BLUR, 0.9), (BLUR, 0.8)]
    cosine = pd.DataFrame(rows, columns=["model", "cosine"]).assign(architecture="batchtopk", corruption=BLUR)
    assert readings.cosine_distributions(cosine) == [
        "BatchTopK SAE: the mean cosine is 0.600 in the base and 0.850 in the tuned model on Gaussian blur 4."
    ]
    columns = ["model", "architecture", "corruption", "statistic", "value", "low", "high"]
    distance = [
        (BLUR, "standard", BLUR, "wasserstein", 0.1, 0.05, 0.15),
        (OTHER, "batchtopk", OTHER, "wasserstein", 0.2, 0.15, 0.25),
        (BLUR, "standard", OTHER, "wasserstein", 0.9, 0.9, 0.9),
    ]
    (text,) = readings.cosine_distances(pd.DataFrame(distance, columns=columns))
    assert "largest Wasserstein distance is 0.200 (0.150 to 0.250; BatchTopK SAE, Gaussian noise 4)" in text


def test_training_curves_by_hand():
    rows = [("base", 10, "l0", 90.0), ("base", 2000, "l0", 31.0), (BLUR, 2000, "l0", 33.5), ("base", 10, "l0", 80.0)]
    rows += [("base", 2000, "explained_variance", 0.8), (BLUR, 2000, "explained_variance", 0.9)]
    history = pd.DataFrame(rows, columns=["model", "tokens", "metric", "value"]).assign(architecture="standard")
    (text,) = readings.training_curves(history)
    assert "Vanilla SAEs end with an explained variance of 0.800 to 0.900 and 31.0 to 33.5 active latents" in text
    assert "2,000 tokens" in text


def test_no_reading_says_nan_or_uses_a_hyphen_for_minus(run):
    for spec in (spec for section in SECTIONS for spec in section.figures):
        for text in spec.reading(run.table(spec.table, spec.columns)):
            assert "nan" not in text.split()
            assert " -" not in text
            assert text.endswith(".")
