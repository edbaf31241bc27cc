"""Corruption errors against sums written out, on tables and on a model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechvit.analysis import ALEXNET_ERROR, corrupted_performance, evaluate, mean_corruption_error
from mechvit.data import Corruption
from mechvit.data.corruption_spec import IMAGENET_C

KEYS = ("clean", "fog_1", "fog_3", "fog_5", "shot_noise_2", "shot_noise_4", "snow_1")
RATES = {
    "base": (0.1, 0.3, 0.5, 0.8, 0.6, 0.9, 0.05),
    "tuned": (0.2, 0.3, 0.4, 0.6, 0.3, 0.5, 0.25),
}


@pytest.fixture(scope="module")
def performance() -> pd.DataFrame:
    """100 images; which ones a model gets wrong is drawn, how many is `RATES`."""
    generator, rows = np.random.default_rng(0), []
    for model, rates in RATES.items():
        for key, rate in zip(KEYS, rates, strict=True):
            rank = np.zeros(100, int)
            rank[generator.permutation(100)[: round(100 * rate)]] = 3
            rows.append(pd.DataFrame({"model": model, "corruption": key, "image_id": np.arange(100) + 7, "rank": rank}))
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def summary(performance) -> pd.DataFrame:
    return mean_corruption_error(performance, resamples=300)


def value(summary: pd.DataFrame, *key) -> float:
    (row,) = summary[(summary[["model", "group", "family", "level", "quantity"]] == list(key)).all(axis=1)].itertuples()
    assert row.low <= row.value <= row.high or np.isnan(row.value)
    return row.value


def test_sums_match_the_definition(summary):
    fog = (0.3 + 0.4 + 0.6) / (0.3 + 0.5 + 0.8)
    shot = (0.3 + 0.5) / (0.6 + 0.9)
    snow = 0.25 / 0.05
    assert value(summary, "tuned", "weather", "fog", 0, "corruption_error") == pytest.approx(fog)
    assert value(summary, "tuned", "noise", "shot_noise", 0, "corruption_error") == pytest.approx(shot)
    assert value(summary, "tuned", "weather", "all", 0, "corruption_error") == pytest.approx((fog + snow) / 2)
    assert value(summary, "tuned", "noise", "all", 0, "corruption_error") == pytest.approx(shot)
    assert value(summary, "tuned", "all", "all", 0, "corruption_error") == pytest.approx((fog + shot + snow) / 3)
    relative = (0.3 + 0.4 + 0.6 - 3 * 0.2) / (0.3 + 0.5 + 0.8 - 3 * 0.1)
    assert value(summary, "tuned", "weather", "fog", 0, "relative_error") == pytest.approx(relative)
    assert value(summary, "tuned", "weather", "fog", 0, "error") == pytest.approx(1.3 / 3)
    assert value(summary, "tuned", "all", "all", 0, "error") == pytest.approx((1.3 / 3 + 0.4 + 0.25) / 3)
    assert value(summary, "tuned", "clean", "clean", 0, "error") == pytest.approx(0.2)


def test_bands_are_means_over_their_families(performance):
    bands = {"fog": "low", "shot_noise": "high", "snow": "low"}
    summary = mean_corruption_error(performance, bands=bands, resamples=50)
    fog, shot, snow = 1.3 / 1.6, 0.8 / 1.5, 0.25 / 0.05
    assert value(summary, "tuned", "low", "all", 0, "corruption_error") == pytest.approx((fog + snow) / 2)
    assert value(summary, "tuned", "high", "all", 0, "corruption_error") == pytest.approx(shot)
    assert value(summary, "tuned", "low", "all", 0, "error") == pytest.approx((1.3 / 3 + 0.25) / 2)
    assert set(summary["group"]) == {"clean", "noise", "weather", "low", "high", "all"}
    plain = mean_corruption_error(performance, resamples=50)
    rest = summary[~summary["group"].isin(["low", "high"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, plain)


def test_single_severities(summary):
    assert value(summary, "tuned", "weather", "fog", 5, "error") == pytest.approx(0.6)
    assert value(summary, "tuned", "weather", "fog", 5, "corruption_error") == pytest.approx(0.6 / 0.8)
    assert value(summary, "tuned", "weather", "fog", 5, "relative_error") == pytest.approx(0.4 / 0.7)


def test_the_reference_is_one_without_spread(summary):
    own = summary[(summary["model"] == "base") & (summary["quantity"] != "error") & summary["value"].notna()]
    assert len(own) > 10
    assert own[["value", "low", "high"]].to_numpy() == pytest.approx(1)


def test_a_ratio_over_nothing_is_nan(summary):
    """Under snow_1 the base is better than on clean images: it has no error to share."""
    assert np.isnan(value(summary, "tuned", "weather", "snow", 0, "relative_error"))
    whole = summary.query("model == 'tuned' and group == 'all' and quantity == 'relative_error'")
    fog, shot = (
        value(summary, "tuned", group, family, 0, "relative_error")
        for group, family in (("weather", "fog"), ("noise", "shot_noise"))
    )
    assert whole["value"].item() == pytest.approx((fog + shot) / 2)
    assert whole["families"].item() == 2
    assert value(summary, "tuned", "weather", "all", 0, "relative_error") == pytest.approx(fog)
    assert np.isfinite(value(summary, "tuned", "noise", "all", 0, "relative_error"))


def test_a_relative_error_needs_a_cost_that_is_sure():
    """A corruption that costs the reference one image of 300 gives no share, however the other model fares."""
    wrong = {("base", "clean"): 30, ("base", "fog_1"): 31, ("base", "snow_1"): 90}
    wrong |= {("tuned", "clean"): 30, ("tuned", "fog_1"): 38, ("tuned", "snow_1"): 60}
    generator, frames = np.random.default_rng(0), []
    for (model, corruption), count in wrong.items():
        rank = np.zeros(300, dtype=int)
        rank[generator.permutation(300)[:count]] = 1
        frames.append(pd.DataFrame({"model": model, "corruption": corruption, "image_id": range(300), "rank": rank}))
    found = mean_corruption_error(pd.concat(frames), resamples=500)
    assert np.isnan(value(found, "tuned", "weather", "fog", 0, "relative_error"))
    snow = value(found, "tuned", "weather", "snow", 0, "relative_error")
    assert snow == pytest.approx(0.5)
    (row,) = found.query("model == 'tuned' and group == 'all' and quantity == 'relative_error'").itertuples()
    assert (row.value, row.families) == (pytest.approx(snow), 1)
    assert row.high < 1.5
    (row,) = found.query("model == 'tuned' and group == 'all' and quantity == 'corruption_error'").itertuples()
    assert (row.value, row.families) == (pytest.approx((38 / 31 + 60 / 90) / 2), 2)


def test_intervals_are_paired(performance):
    """For two models wrong on the same images the ratio is certain; of models that differ it is not."""
    copy = performance[performance["model"] == "base"].assign(model="copy")
    summary = mean_corruption_error(pd.concat([performance, copy]), resamples=300)
    rows = summary[(summary["family"] == "fog") & (summary["level"] == 0)].set_index(["model", "quantity"])
    same, other = rows.loc[("copy", "corruption_error")], rows.loc[("tuned", "corruption_error")]
    assert same["low"] == same["high"] == pytest.approx(1)
    assert other["high"] - other["low"] > 0.05


def test_interval_matches_a_loop_of_resamples(performance):
    """A bootstrap written as a loop, other draws: the ends agree to Monte Carlo error."""
    wide = performance.assign(wrong=performance["rank"] > 0).pivot(
        index="image_id", columns=["model", "corruption"], values="wrong"
    )
    generator, draws = np.random.default_rng(9), []
    fog = [key for key in KEYS if key.startswith("fog")]
    base, tuned = (wide[model][fog].to_numpy() for model in ("base", "tuned"))
    for _ in range(3000):
        taken = generator.integers(100, size=100)
        draws.append(tuned[taken].sum() / base[taken].sum())
    summary = mean_corruption_error(performance)
    (row,) = summary.query(
        "model == 'tuned' and family == 'fog' and level == 0 and quantity == 'corruption_error'"
    ).itertuples()
    assert [row.low, row.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.015)


def test_given_errors_stand_in_for_a_model(performance):
    given = {"clean": 0.2, "fog": 0.65, "shot_noise": 0.8, "snow": 0.5}
    summary = mean_corruption_error(performance, reference=given, resamples=50)
    fog = value(summary, "tuned", "weather", "fog", 0, "corruption_error")
    assert fog == pytest.approx(1.3 / 3 / 0.65)
    relative = value(summary, "tuned", "weather", "fog", 0, "relative_error")
    assert relative == pytest.approx((1.3 / 3 - 0.2) / 0.45)
    assert set(summary.query("level == 5")["quantity"]) == {"error"}


def test_alexnet_is_the_published_reference():
    assert set(ALEXNET_ERROR) == {"clean", *IMAGENET_C}
    percent = [round(100 * ALEXNET_ERROR[family], 1) for family in ("clean", "gaussian_noise", "brightness")]
    assert percent == [43.5, 88.6, 56.5]


def test_errors_name_what_lacks(performance):
    with pytest.raises(ValueError, match=r"reference must be one of the table's models, base, tuned.*got 'nobody'"):
        mean_corruption_error(performance, reference="nobody")
    with pytest.raises(ValueError, match="fog, snow missing"):
        mean_corruption_error(performance, reference={"clean": 0.1, "shot_noise": 0.5})
    some = performance[(performance["model"] == "base") | (performance["corruption"] != "fog_3")]
    with pytest.raises(ValueError, match="tuned lacks fog_3"):
        mean_corruption_error(some)
    with pytest.raises(ValueError, match="lacks clean"):
        mean_corruption_error(performance[performance["corruption"] != "clean"])
    with pytest.raises(ValueError, match="at least one corruption besides clean"):
        mean_corruption_error(performance[performance["corruption"] == "clean"])


def test_corrupted_performance_matches_evaluate(tiny_model, tiny_images):
    corruptions = [Corruption("shot_noise", 3), Corruption("glass_blur", 1)]
    table = corrupted_performance({"a": tiny_model, "b": tiny_model}, tiny_images, corruptions, batch_size=7, seed=2)
    for key in ("clean", "shot_noise_3", "glass_blur_1"):
        expected = evaluate(tiny_model, tiny_images, key, seed=2)
        for name in ("a", "b"):
            rows = table[(table["model"] == name) & (table["corruption"] == key)]
            assert rows["rank"].tolist() == expected.rank.tolist()
            assert rows["image_id"].tolist() == expected.image_id.tolist()
    without = corrupted_performance({"a": tiny_model}, tiny_images, corruptions, clean=False, seed=2)
    kept = table[(table["model"] == "a") & (table["corruption"] != "clean")].reset_index(drop=True)
    pd.testing.assert_frame_equal(without, kept)
    with pytest.raises(ValueError, match="no model"):
        corrupted_performance({}, tiny_images, corruptions)
    with pytest.raises(ValueError, match="no condition to classify under"):
        corrupted_performance({"a": tiny_model}, tiny_images, (), clean=False)
