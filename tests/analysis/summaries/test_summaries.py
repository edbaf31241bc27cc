import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from mechvit.analysis import (
    attention_summary,
    first_correct,
    first_correct_summary,
    lens_summary,
    performance_summary,
)
from mechvit.analysis.behaviour.performance import score

IMAGES, CLASSES, LAYERS = 200, 19, 4
MODELS = {"base": 1.0, "gaussian_blur_4": 2.0}
CONDITIONS = {"clean": 1.0, "gaussian_blur_4": 0.0}
IDS = torch.arange(IMAGES) + 70


@pytest.fixture(scope="module")
def logits() -> dict[tuple[str, str], torch.Tensor]:
    """(model, corruption) -> logits [images, classes]; the labels are `labels()`."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for model, skill in MODELS.items():
        for corruption, ease in CONDITIONS.items():
            drawn = 1.5 * torch.randn(IMAGES, CLASSES, generator=generator)
            drawn[range(IMAGES), labels()] += skill + ease
            found[model, corruption] = drawn
    return found


def labels() -> torch.Tensor:
    return torch.randint(0, CLASSES, (IMAGES,), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def performance(logits) -> pd.DataFrame:
    parts = [score(x, labels(), IDS).to_frame(model=m, corruption=c) for (m, c), x in logits.items()]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def lens() -> pd.DataFrame:
    """Ranks that are 0 more and more often towards the last layer; some images are right nowhere."""
    rng = np.random.default_rng(0)
    parts = []
    for model in MODELS:
        for corruption in CONDITIONS:
            share = np.linspace(0.05, 0.5 if model == "base" else 0.7, LAYERS)
            rank = np.where(rng.uniform(size=(IMAGES, LAYERS)) < share, 0, rng.integers(1, 9, (IMAGES, LAYERS)))
            columns = {"image_id": np.repeat(IDS.numpy(), LAYERS), "layer": np.tile(np.arange(LAYERS), IMAGES)}
            probability = rng.beta(2, 3, IMAGES * LAYERS)
            parts.append(
                pd.DataFrame({"model": model, "corruption": corruption, **columns, "rank": rank.ravel()}).assign(
                    probability=probability
                )
            )
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=0)


def metrics(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    options = {"num_classes": CLASSES, "average": "micro"}
    found = {name: multiclass_accuracy(logits, labels, top_k=k, **options) for name, k in TOP.items()}
    ece = multiclass_calibration_error(logits.softmax(-1), labels, num_classes=CLASSES, n_bins=15, norm="l1")
    return {name: float(value) for name, value in {**found, "ece": ece}.items()}


TOP = {"accuracy": 1, "top5": 5, "top10": 10}


def test_performance_summary_matches_torchmetrics(performance, logits):
    summary = performance_summary(performance, resamples=50).set_index(["model", "corruption", "metric"])
    assert len(summary) == 2 * 2 * 5
    expected = {condition: metrics(x, labels()) for condition, x in logits.items()}
    for (model, corruption), values in expected.items():
        for metric, value in values.items():
            row = summary.loc[model, corruption, metric]
            assert row["value"] == pytest.approx(value, abs=1e-6)
            assert row["gain"] == pytest.approx(value - expected["base", corruption][metric], abs=1e-6)
            assert row["low"] < row["high"]
    gain = summary.loc["gaussian_blur_4", "gaussian_blur_4", "accuracy"]
    assert gain["gain"] > 0.05
    assert (summary.loc["base"][["gain", "gain_low", "gain_high"]] == 0).all(axis=None)


def test_performance_intervals_match_explicit_resampling(performance, logits):
    """torchmetrics on resampled logits, both models on the same resample; slack: a sixth of the interval."""
    summary = performance_summary(performance, resamples=2000, level=0.9).set_index(["model", "corruption", "metric"])
    rng, condition = np.random.default_rng(5), "gaussian_blur_4"
    draws, gains = [], []
    for _ in range(400):
        rows = torch.from_numpy(rng.choice(IMAGES, IMAGES))
        base, tuned = (metrics(logits[m, condition][rows], labels()[rows]) for m in MODELS)
        draws.append(tuned)
        gains.append({name: tuned[name] - base[name] for name in tuned})
    for prefix, frame in (("", pd.DataFrame(draws)), ("gain_", pd.DataFrame(gains))):
        for metric in frame:
            low, high = frame[metric].quantile([0.05, 0.95])
            row = summary.loc["gaussian_blur_4", condition, metric]
            slack = (high - low) / 6
            assert row[f"{prefix}low"] == pytest.approx(low, abs=slack), (prefix, metric)
            assert row[f"{prefix}high"] == pytest.approx(high, abs=slack), (prefix, metric)


def test_gains_are_paired(performance):
    """A model that only differs from the base on one image has a gain interval as narrow as that one image."""
    base = performance[performance["model"] == "base"]
    twin = base.assign(model="gaussian_blur_4")
    wrong = twin.index[(twin["corruption"] == "clean") & (twin["rank"] > 0)][0]
    twin.loc[wrong, "rank"] = 0
    summary = performance_summary(pd.concat([base, twin]), resamples=500).set_index(["model", "corruption", "metric"])
    row = summary.loc["gaussian_blur_4", "clean", "accuracy"]
    assert row["gain"] == pytest.approx(1 / IMAGES)
    assert 0 <= row["gain_low"] <= row["gain_high"] <= 5 / IMAGES
    assert row["high"] - row["low"] > 20 / IMAGES


def test_without_a_base_gains_are_nan(performance, lens):
    assert (
        performance_summary(performance, base=None, resamples=5)[["gain", "gain_low", "gain_high"]]
        .isna()
        .all(axis=None)
    )
    first = first_correct_summary(first_correct(lens), base=None, resamples=5)
    assert first[["difference", "difference_low", "difference_high"]].isna().all(axis=None)
    assert (first["n_paired"] == 0).all()
    assert (first["n"] > 0).all()


def test_lens_summary_matches_groupby(lens):
    found = lens_summary(lens, resamples=300).set_index(["model", "corruption", "layer"])
    expected = lens.groupby(["model", "corruption", "layer"])["probability"]
    mean, error = expected.mean(), expected.std(ddof=0) / np.sqrt(IMAGES)
    assert len(found) == len(mean) == 2 * 2 * LAYERS
    np.testing.assert_allclose(found["probability"].reindex(mean.index), mean, rtol=1e-12)
    half = (found["high"] - found["low"]).reindex(mean.index) / 2
    np.testing.assert_allclose(half, 1.96 * error, rtol=0.25)


def loop_first_correct(lens: pd.DataFrame) -> dict[tuple[str, str, int], int]:
    found: dict[tuple[str, str, int], int] = {}
    for row in lens.sort_values("layer").itertuples():
        if row.rank == 0:
            found.setdefault((row.model, row.corruption, row.image_id), row.layer)
    return found


def test_first_correct_matches_loop(lens):
    frame = first_correct(lens)
    assert list(frame.columns) == ["model", "corruption", "image_id", "layer"]
    found = {tuple(row[:3]): row[3] for row in frame.itertuples(index=False)}
    assert len(found) == len(frame)
    assert found == loop_first_correct(lens)
    assert set(found.values()) == set(range(LAYERS))
    assert len(found) < 2 * 2 * IMAGES


def test_first_correct_summary_matches_loop(lens):
    first = loop_first_correct(lens)
    summary = first_correct_summary(first_correct(lens), resamples=1500).set_index(["model", "corruption"])
    rng = np.random.default_rng(3)
    for model in MODELS:
        for corruption in CONDITIONS:
            row = summary.loc[model, corruption]
            own = np.array([first.get((model, corruption, i), np.nan) for i in IDS.tolist()])
            base = np.array([first.get(("base", corruption, i), np.nan) for i in IDS.tolist()])
            assert row["n"] == np.isfinite(own).sum() < IMAGES
            assert row["mean"] == pytest.approx(np.nanmean(own))
            assert row["n_paired"] == np.isfinite(own - base).sum()
            assert row["difference"] == pytest.approx(np.nanmean(own - base))
            rows = np.stack([rng.choice(IMAGES, IMAGES) for _ in range(1500)])
            for column, low, high in ((own, "low", "high"), (own - base, "difference_low", "difference_high")):
                expected = np.quantile(np.nanmean(column[rows], axis=1), [0.025, 0.975])
                np.testing.assert_allclose([row[low], row[high]], expected, atol=0.12 * np.ptp(expected) + 1e-9)
    assert (summary.loc["base"][["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert summary.loc["gaussian_blur_4", "clean"]["n_paired"] < summary.loc["base", "clean"]["n_paired"]


def test_first_correct_of_images_that_no_model_shares_is_nan(lens):
    first = first_correct(lens)
    apart = first[(first["image_id"] % 2 == 0) == (first["model"] == "base")]
    row = first_correct_summary(apart, resamples=20).set_index(["model", "corruption"]).loc["gaussian_blur_4", "clean"]
    assert row["n_paired"] == 0
    assert row[["difference", "difference_low", "difference_high"]].isna().all()
    assert row["low"] <= row["mean"] <= row["high"]


def test_first_correct_summary_of_nothing_right_is_empty(lens):
    nothing = first_correct(lens.assign(rank=3))
    assert len(nothing) == 0
    assert len(first_correct_summary(nothing, base=None)) == 0


def test_attention_summary_matches_groupby(lens):
    rng = np.random.default_rng(2)
    quantities = {
        "entropy_difference": rng.normal(-0.1, 0.3, len(lens)),
        "cosine": rng.beta(8, 2, len(lens)),
        "squared_difference": rng.exponential(0.01, len(lens)),
    }
    attention = lens[["model", "corruption", "image_id", "layer"]].assign(**quantities)
    found = attention_summary(attention, resamples=300).set_index(["quantity", "model", "corruption", "layer"])
    assert len(found) == 3 * 2 * 2 * LAYERS
    for quantity in quantities:
        expected = attention.groupby(["model", "corruption", "layer"])[quantity]
        part = found.loc[quantity].reindex(expected.mean().index)
        np.testing.assert_allclose(part["value"], expected.mean(), rtol=1e-12)
        assert (part["low"] < part["value"]).all()
        error = expected.std(ddof=0) / np.sqrt(IMAGES)
        np.testing.assert_allclose((part["high"] - part["low"]) / 2, 1.96 * error, rtol=0.25)


def test_tables_that_cannot_be_summarised_are_refused(performance, lens):
    with pytest.raises(ValueError, match=r"base must be one of the table's models, base, gaussian_blur_4.*'vit'"):
        performance_summary(performance, base="vit")
    with pytest.raises(ValueError, match="'vit'"):
        first_correct_summary(first_correct(lens), base="vit")
    with pytest.raises(ValueError, match="lacks the columns confidence"):
        performance_summary(performance.drop(columns="confidence"))
    with pytest.raises(ValueError, match="some appear twice"):
        lens_summary(pd.concat([lens, lens.iloc[:1]]))
    with pytest.raises(ValueError, match=r"for all 200 images.*lacks 1"):
        performance_summary(performance.iloc[1:])
    with pytest.raises(ValueError, match="no rows"):
        lens_summary(lens.iloc[:0])
    with pytest.raises(ValueError, match="lacks the columns cosine"):
        attention_summary(lens.assign(entropy_difference=0.0, squared_difference=0.0), resamples=5)
