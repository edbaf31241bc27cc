"""Distances of cosine distributions against scipy, and their bootstrap against float64 loops and known answers."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp, wasserstein_distance

from mechvit.saes import distance_table, distribution_distance
from mechvit.saes.evaluation.cosine_distance import EDGES, distribution_gaps

STATISTICS = ("wasserstein", "kolmogorov_smirnov", "mean_difference")


def frame(values, ids=None):
    images, tokens = values.shape
    ids = np.arange(images) * 3 + 11 if ids is None else ids
    return pd.DataFrame(
        {
            "image_id": np.repeat(ids, tokens),
            "token": np.tile(np.arange(tokens), images),
            "cosine": values.ravel().astype(np.float32),
        }
    )


def draw(kind, shift, images=200, tokens=36, seed=0):
    """Cosines of several shapes; images differ, so that patches of one image are alike."""
    rng = np.random.default_rng(seed)
    own = rng.beta(4, 2, (images, 1))
    base = np.clip(own + rng.normal(0, 0.15, (images, tokens)), 0, 1)
    tuned = np.clip(own + rng.normal(0, 0.15, (images, tokens)) - shift, 0, 1)
    if kind == "signed":
        return 2 * base - 1, 2 * tuned - 1
    if kind == "near one":
        return 1 - 1e-3 * (1 - base), 1 - 1e-3 * (1 - tuned)
    return base, tuned


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.3])
@pytest.mark.parametrize("kind", ["clipped", "signed", "near one"])
def test_values_match_scipy_and_the_grid_is_fine(kind, shift):
    pair = [values.astype(np.float32).astype(np.float64) for values in draw(kind, shift)]
    found = distribution_distance(*map(frame, pair), resamples=50)
    base, tuned = (values.ravel() for values in pair)
    expected = {
        "wasserstein": wasserstein_distance(base, tuned),
        "kolmogorov_smirnov": ks_2samp(base, tuned).statistic,
        "mean_difference": tuned.mean() - base.mean(),
    }
    assert tuple(found) == STATISTICS
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-9, abs=1e-12)
    gap, edges = distribution_gaps(*pair)
    assert len(edges) <= EDGES
    size = np.abs(gap.mean(0))
    span = edges[-1] - edges[0]
    assert (size[:-1] * np.diff(edges)).sum() == pytest.approx(expected["wasserstein"], abs=2e-3 * span)
    assert size.max() == pytest.approx(expected["kolmogorov_smirnov"], abs=2e-3)


def test_a_small_grid_is_exact():
    base, tuned = (values[:8, :5] for values in draw("clipped", 0.1))
    gap, edges = distribution_gaps(base, tuned)
    size = np.abs(gap.mean(0))
    assert (size[:-1] * np.diff(edges)).sum() == pytest.approx(wasserstein_distance(base.ravel(), tuned.ravel()))
    assert size.max() == pytest.approx(ks_2samp(base.ravel(), tuned.ravel()).statistic)
    by_loop = [[np.mean(t <= edge) - np.mean(b <= edge) for edge in edges] for b, t in zip(base, tuned, strict=True)]
    np.testing.assert_allclose(gap, by_loop, atol=1e-12)


@pytest.mark.parametrize(("images", "tokens", "atol"), [(60, 36, 2e-3), (60, 8, 1e-9)])  # the second grid is exact
def test_intervals_match_scipy_on_each_resample(images, tokens, atol):
    pair = draw("clipped", 0.05, images=images, tokens=tokens)
    base, tuned = (values.astype(np.float32).astype(np.float64) for values in pair)
    found = distribution_distance(frame(base), frame(tuned), resamples=200, level=0.9, seed=4)
    drawn = np.random.default_rng(4).integers(60, size=(200, 60))  # paired: one draw of images for both
    draws = {
        "wasserstein": [wasserstein_distance(base[rows].ravel(), tuned[rows].ravel()) for rows in drawn],
        "kolmogorov_smirnov": [ks_2samp(base[rows].ravel(), tuned[rows].ravel()).statistic for rows in drawn],
        "mean_difference": [tuned[rows].mean() - base[rows].mean() for rows in drawn],
    }
    for name, values in draws.items():
        low, high = np.quantile(values, [0.05, 0.95])
        assert found[name].low == pytest.approx(low, abs=atol)
        assert found[name].high == pytest.approx(high, abs=atol)
        assert high - low > 5e-3


def test_mean_difference_covers_the_truth_and_pairing_narrows_it():
    covered, width, unpaired = 0, [], []
    for seed in range(60):
        base, tuned = draw("plain", 0.0, images=80, tokens=4, seed=seed)
        tuned = tuned + 0.01
        found = distribution_distance(frame(base), frame(tuned), resamples=300, seed=seed)["mean_difference"]
        covered += found.low <= 0.01 <= found.high
        width.append(found.high - found.low)
        spread = base.mean(1).var(ddof=1) + tuned.mean(1).var(ddof=1)
        unpaired.append(2 * 1.96 * np.sqrt(spread / 80))
    assert 50 <= covered <= 60  # binomial(60, 0.95) lies there with probability above 0.999
    assert np.mean(width) < 0.7 * np.mean(unpaired)


def test_equal_distributions_and_shifted_ones():
    base = draw("clipped", 0)[0]
    same = distribution_distance(frame(base), frame(base), resamples=100)
    assert all(tuple(part) == (0, 0, 0) for part in same.values())
    inner = 0.1 + 0.5 * base
    moved = distribution_distance(frame(inner), frame(inner + 0.25), resamples=100)
    for part in (moved["wasserstein"], moved["mean_difference"]):
        assert part.value == pytest.approx(0.25, abs=1e-6)
        assert part.low == pytest.approx(0.25, abs=2e-3)
        assert part.high == pytest.approx(0.25, abs=2e-3)
    apart = distribution_distance(frame(0.4 * base), frame(0.5 + 0.4 * base), resamples=100)["kolmogorov_smirnov"]
    assert tuple(apart) == (1, 1, 1)


def test_invariant_to_the_order_of_rows():
    base, tuned = map(frame, draw("clipped", 0.05))
    mixed = tuned.sample(frac=1, random_state=0)
    found, again = distribution_distance(base, tuned, resamples=50), distribution_distance(base, mixed, resamples=50)
    for name in STATISTICS:
        assert tuple(found[name]) == pytest.approx(tuple(again[name]), abs=1e-12)


def test_the_papers_size_takes_seconds():
    pair = [frame(values) for values in draw("clipped", 0.02, images=950, tokens=64)]
    start = time.process_time()
    distribution_distance(*pair)
    assert time.process_time() - start < 4


def table(parts):
    frames = [f.assign(model=m, architecture=a, corruption=c) for (m, a, c), f in parts.items()]
    return pd.concat(frames, ignore_index=True)


def test_table_has_what_both_models_have():
    base, tuned = map(frame, draw("clipped", 0.05, images=30))
    other = frame(draw("clipped", 0.2, images=30, seed=1)[1])
    parts = {
        ("base", "standard", "gaussian_blur_4"): base,
        ("base", "batchtopk", "gaussian_blur_4"): other,
        ("base", "standard", "gaussian_noise_4"): other,
        ("gaussian_blur_4", "standard", "gaussian_blur_4"): tuned,
        ("gaussian_blur_4", "standard", "gaussian_noise_2"): tuned,
        ("gaussian_noise_4", "standard", "gaussian_noise_4"): tuned,
    }
    found = distance_table(table(parts), resamples=100, level=0.8, seed=2)
    assert list(found.columns) == ["model", "architecture", "corruption", "statistic", "value", "low", "high"]
    keys = [("gaussian_blur_4", "standard", "gaussian_blur_4"), ("gaussian_noise_4", "standard", "gaussian_noise_4")]
    assert list(found.itertuples(index=False, name=None)) == [
        (*key, name, *part)
        for key, own in zip(keys, (base, other), strict=True)
        for name, part in distribution_distance(own, tuned, resamples=100, level=0.8, seed=2).items()
    ]
    assert found.query("statistic == 'mean_difference'")["value"].iloc[0] < 0  # tuned - base
    reversed_ = distance_table(table(parts), base="gaussian_blur_4", resamples=10)
    assert set(reversed_["model"]) == {"base"}
    assert len(distance_table(table({keys[0]: base}), base="gaussian_blur_4")) == 0


def test_refuses_what_cannot_be_compared():
    base, tuned = map(frame, draw("clipped", 0.05, images=10))
    for other, words in (
        (tuned[tuned["image_id"] != 14], r"\(10, 36\) and \(9, 36\) cosines, and 1 images in one alone, as \[14\]"),
        (tuned[tuned["token"] < 20], r"\(10, 36\) and \(10, 20\) cosines"),
        (tuned.iloc[1:], r"equally many cosines, at least one; got \[35, 36\]"),
        (tuned.iloc[:0], r"at least one; got \[\]"),
        (tuned.assign(cosine=tuned["cosine"].where(tuned.index != 7)), "must be finite; 1 are not"),
    ):
        with pytest.raises(ValueError, match=words):
            distribution_distance(base, other)
    key = ("base", "standard", "gaussian_blur_4")
    with pytest.raises(ValueError, match="comes once; 360 rows repeat"):
        distance_table(pd.concat([table({key: base})] * 2))
    with pytest.raises(ValueError, match=r"the model 'start'; got \['base'\]"):
        distance_table(table({key: base}), base="start")
