"""Scores of readings on tables whose answer is known: ranks, division by the null, thresholds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from mechvit.benchmark import auroc, detection, divide_by_nulls, place_scores
from mechvit.benchmark.scores import divided, mean_and_interval, threshold

NULLS, LAYERS = 6, 6


def test_auroc_is_the_rank_statistic():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, positive = rng.integers(0, 5, 12).astype(float), rng.permutation(12) < 3
        pairs = [(a > b) + 0.5 * (a == b) for a in values[positive] for b in values[~positive]]
        assert auroc(values, positive) == pytest.approx(np.mean(pairs))
        expected = mannwhitneyu(values[positive], values[~positive]).statistic / (3 * 9)
        assert auroc(values, positive) == pytest.approx(expected)
    one = np.arange(12) == 4
    assert auroc(one.astype(float), one) == 1
    assert auroc(-one.astype(float), one) == 0
    assert auroc(np.ones(12), one) == 0.5
    with pytest.raises(ValueError, match="positive places and others"):
        auroc(np.ones(3), np.zeros(3, bool))
    with pytest.raises(ValueError, match="NaN"):
        auroc(np.array([1, np.nan]), np.array([True, False]))


def table(effect: float, scale: np.ndarray, *, plants: int = 40, seed: int = 0) -> pd.DataFrame:
    """Readings of one base: noise of a scale of its own at each place, and an effect at the planted one, in scales."""
    rng = np.random.default_rng(seed)
    places = list(itertools.product(range(LAYERS), ("attn", "mlp")))
    rows = []
    for pair in range(NULLS + plants):
        null = pair < NULLS
        true = places[rng.integers(len(places))]
        truth = ("null", 0.0, False, -1, "") if null else ("mlp_rank_one", 1.0, True, *true)
        for place, own in zip(places, scale, strict=True):
            value = own * (5 + rng.normal() + (effect if not null and place == true else 0))
            rows.append(("vit", 0, f"pair {pair}", *truth, -1, "method", "reading", *place, -1, value))
    names = "shape base_seed pair kind strength changes_function true_layer true_branch true_head method reading"
    return pd.DataFrame(rows, columns=[*names.split(), "layer", "branch", "head", "value"])


def test_a_perfect_reading_scores_one_and_a_random_one_a_half():
    even = np.ones(2 * LAYERS)
    perfect = place_scores(divide_by_nulls(table(1e3, even)))
    assert len(perfect) == 40
    assert (perfect["auroc"] == 1).all()
    assert (perfect["auroc_divided"] == 1).all()
    random = place_scores(divide_by_nulls(table(0.0, even, plants=400)))
    for name in ("auroc", "auroc_divided"):
        mean, low, high, n = mean_and_interval(random[name])
        assert n == 400
        assert low < 0.5 < high
        assert abs(mean - 0.5) < 0.05


def test_division_helps_where_places_have_scales_of_their_own():
    uneven = np.exp(np.linspace(0, 6, 2 * LAYERS))
    scores = place_scores(divide_by_nulls(table(8.0, uneven)))
    assert scores["auroc"].mean() < 0.8
    assert scores["auroc_divided"].mean() > 0.95


def test_a_null_pair_is_read_beside_the_others_alone():
    frame = table(0.0, np.ones(2 * LAYERS), plants=3)
    found = divide_by_nulls(frame)
    wide = frame.pivot(index="pair", columns=["layer", "branch"], values="value")
    for pair in ("pair 0", "pair 7"):
        others = [f"pair {i}" for i in range(NULLS) if f"pair {i}" != pair]
        expected = divided(wide.loc[others].to_numpy(), wide.loc[pair].to_numpy())
        own = found[found["pair"] == pair].set_index(["layer", "branch"])["z"].loc[list(wide.columns)]
        assert np.allclose(own, expected)
    assert (divided(np.ones((4, 3)), np.array([1.0, 2.0, 0.5])) == [0, math.inf, -math.inf]).all()


def test_a_threshold_lets_one_in_twenty_nulls_pass():
    rng = np.random.default_rng(1)
    for n in (19, 40, 100):
        draws = rng.normal(size=(4000, n + 1))
        passed = np.mean([row[-1] > threshold(row[:-1]) for row in draws])
        assert passed <= 0.05 + 0.012
        assert passed >= 0.05 - 1 / n - 0.012
    assert threshold(np.arange(10.0)) == math.inf


def test_detection_calls_what_is_large():
    frames = [table(20.0, np.ones(2 * LAYERS), seed=seed).assign(base_seed=seed) for seed in range(4)]
    found = detection(divide_by_nulls(pd.concat(frames, ignore_index=True)))
    assert len(found) == 160
    assert found["called"].mean() > 0.9
    nothing = [table(0.0, np.ones(2 * LAYERS), seed=seed).assign(base_seed=seed) for seed in range(4)]
    assert detection(divide_by_nulls(pd.concat(nothing, ignore_index=True)))["called"].mean() < 0.15


def test_heads_are_scored_where_a_head_was_changed():
    frame = table(50.0, np.ones(2 * LAYERS), plants=6)
    heads = frame[frame["branch"] == "attn"]
    heads = pd.concat([heads.assign(head=head, reading="head output") for head in range(2)], ignore_index=True)
    rng = np.random.default_rng(0)
    heads["value"] += rng.normal(size=len(heads)) + 100.0 * ((heads["head"] == 1) & (heads["layer"] == 2))
    one = {"true_layer": 2, "true_branch": "attn", "true_head": 1}
    planted = heads["kind"] != "null"
    heads.loc[~planted, "value"] -= 100.0 * ((heads["head"] == 1) & (heads["layer"] == 2))[~planted]
    for name, value in one.items():
        heads.loc[planted, name] = value
    found = place_scores(divide_by_nulls(pd.concat([frame, heads], ignore_index=True)))
    assert set(found.loc[found["reading"] == "head output", "place"]) == {"head"}
    assert (found.loc[found["reading"] == "head output", "auroc_divided"] == 1).all()
    assert (found.loc[found["reading"] == "reading", "place"] == "branch").all()


def test_too_few_nulls_are_refused():
    frame = table(0.0, np.ones(2 * LAYERS), plants=1)
    few = frame[~frame["pair"].isin([f"pair {i}" for i in range(2, NULLS)])]
    with pytest.raises(ValueError, match="beside two others or more; a base has 2"):
        divide_by_nulls(few)
    mean, low, high, n = mean_and_interval([0.7])
    assert (mean, n) == (0.7, 1)
    assert math.isnan(low)
    assert math.isnan(high)
