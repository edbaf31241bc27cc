"""Lenses on one pass are what each is alone, and their summary is means with the usual intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from mechvit.analysis import (
    PredictionDepth,
    TunedLens,
    compare_lenses,
    evaluate,
    lens_comparison_summary,
    logit_lens,
    prediction_depth,
    tuned_lens,
)

KEY = "gaussian_noise_4"


@pytest.fixture
def lens(tiny_model):
    lens = TunedLens.identity(tiny_model)
    lens.weight.copy_(torch.randn(lens.weight.shape, generator=torch.Generator().manual_seed(1)) / 8)
    return lens


def test_one_pass_is_each_lens_alone(tiny_model, batch, lens):
    found = compare_lenses(tiny_model, {"logit": None, "tuned": lens}, batch, KEY, batch_size=7)
    for name, alone in (
        ("logit", logit_lens(tiny_model, batch, KEY)),
        ("tuned", tuned_lens(tiny_model, lens, batch, KEY)),
    ):
        torch.testing.assert_close(found[name].probability, alone.probability, atol=1e-5, rtol=0)
        assert torch.equal(found[name].rank, alone.rank)
    model = evaluate(tiny_model, batch, KEY)
    for reading in found.values():
        assert torch.equal(reading.prediction[:, -1], model.prediction)
        torch.testing.assert_close(reading.probability[:, -1], model.probability, atol=1e-5, rtol=0)
    depth = prediction_depth(tiny_model, batch, KEY, lens=lens)
    assert torch.equal(PredictionDepth.of(found["tuned"]).depth, depth.depth)
    assert not torch.equal(PredictionDepth.of(found["logit"]).depth, depth.depth)


def test_summary_is_of_the_means(tiny_model, batch, lens):
    found = compare_lenses(tiny_model, {"logit": None, "tuned": lens}, batch, KEY)
    frames = [reading.to_frame(model="base", corruption=KEY, lens=name) for name, reading in found.items()]
    columns = ["model", "corruption", "lens", "image_id", "layer", "probability", "rank", "divergence", "prediction"]
    assert list(frames[0]) == columns
    summary = lens_comparison_summary(pd.concat(frames), resamples=3000)
    summary = summary.set_index(["lens", "layer", "quantity"])
    assert len(summary) == 2 * 4 * 2
    rng = np.random.default_rng(3)
    for name, quantity in (("logit", "probability"), ("tuned", "divergence")):
        values = getattr(found[name], quantity)[:, 1].numpy()
        row = summary.loc[(name, 1, quantity)]
        assert row["value"] == pytest.approx(values.mean(), rel=1e-5)
        draws = [values[rng.choice(24, 24)].mean() for _ in range(3000)]
        ends = row[["low", "high"]].to_numpy(float)
        np.testing.assert_allclose(ends, np.quantile(draws, [0.025, 0.975]), atol=0.05 * np.ptp(draws))


def test_no_lens_is_refused(tiny_model, batch):
    with pytest.raises(ValueError, match="must name at least one lens"):
        compare_lenses(tiny_model, {}, batch)
