"""Histograms with intervals: counts against NumPy, intervals against what is known of proportions and of clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mechvit.analysis import cosine_histogram, first_correct_histogram


@pytest.fixture
def first() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"model": "base", "corruption": "clean", "image_id": np.arange(400), "layer": rng.binomial(6, 0.7, 400)}
    )


def test_shares_match_counts(first):
    found = first_correct_histogram(first)
    for row in found.itertuples():
        assert row.share == pytest.approx((first["layer"] == row.layer).sum() / 400)
    assert found["layer"].tolist() == list(range(7))
    assert found["share"].sum() == pytest.approx(1)
    assert set(found["images"]) == {400}


def test_intervals_of_shares_match_the_binomial(first):
    found = first_correct_histogram(first).query("share > 0.1")
    half = 1.96 * np.sqrt(found["share"] * (1 - found["share"]) / 400)
    assert len(found) >= 3
    np.testing.assert_allclose((found["high"] - found["low"]) / 2, half, rtol=0.1)


def test_a_share_of_all_or_none_is_certain(first):
    found = first_correct_histogram(first.assign(layer=2)).set_index("layer")[["share", "low", "high"]]
    assert found.to_numpy().tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]


def test_groups_are_apart_and_share_their_layers(first):
    other = first.assign(model="tuned", layer=1)
    found = first_correct_histogram(pd.concat([first, other]))
    tuned = found.query("model == 'tuned'")
    assert tuned["layer"].tolist() == list(range(7))
    assert tuned["share"].tolist() == [0, 1, 0, 0, 0, 0, 0]


def cosines(images: int, patches: int, spread: float) -> pd.DataFrame:
    """Each image at a place of its own; its patches around it."""
    rng = np.random.default_rng(1)
    values = np.clip(rng.uniform(0.2, 0.8, (images, 1)) + spread * rng.normal(size=(images, patches)), 0, 1)
    ids = np.repeat(np.arange(images), patches)
    about = {"model": "base", "architecture": "standard", "corruption": "blur", "image_id": ids}
    return pd.DataFrame({**about, "cosine": values.ravel()})


def test_densities_match_numpy():
    frame = cosines(50, 30, 0.3)
    found = cosine_histogram(frame, bins=20)
    expected, edges = np.histogram(frame["cosine"], 20, (0, 1), density=True)
    np.testing.assert_allclose(found["density"], expected, rtol=1e-12)
    np.testing.assert_allclose([found["left"], found["right"]], [edges[:-1], edges[1:]])
    assert (found["low"] <= found["density"]).all()
    assert (found["density"] <= found["high"]).all()
    assert found["mean_cosine"].iloc[0] == pytest.approx(frame["cosine"].mean())


def test_negative_cosines_open_the_other_half():
    frame = cosines(10, 5, 0.1)
    frame.loc[3, "cosine"] = -0.4
    assert cosine_histogram(frame, bins=4)["left"].tolist() == [-1, -0.5, 0, 0.5]


def test_intervals_are_over_images_not_patches():
    """Patches that equal their image say nothing new: the interval is that of one patch an image."""
    many, one = cosines(60, 100, 0.0), cosines(60, 1, 0.0)
    for column in ("density", "low", "high"):
        np.testing.assert_allclose(cosine_histogram(many, bins=5)[column], cosine_histogram(one, bins=5)[column])


def test_without_images_there_is_no_interval():
    found = cosine_histogram(cosines(10, 5, 0.1).drop(columns="image_id"), bins=5)
    assert found[["low", "high"]].isna().all(axis=None)
    assert found["density"].sum() / 5 == pytest.approx(1)
