"""Prediction depth against loops, and its change against explicit resampling."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from mechvit.analysis import (
    TunedLens,
    compare_lenses,
    depth_summary,
    evaluate,
    lens_comparison_summary,
    prediction_depth,
)
from mechvit.analysis.lenses.prediction_depth import depth_of
from mechvit.data import ImageBatch


def loop(predictions):
    """Walk back from the last layer while the prediction stays."""
    depth = len(predictions) - 1
    while depth > 0 and predictions[depth - 1] == predictions[-1]:
        depth -= 1
    return depth


def test_depth_matches_loop():
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randint(2, (500, 5), generator=generator)
    found = depth_of(predictions).tolist()
    assert found == [loop(row) for row in predictions.tolist()]
    assert set(found) == {0, 1, 2, 3, 4}
    assert depth_of(torch.tensor([[7]])).tolist() == [0]


@pytest.mark.parametrize("key", ["clean", "gaussian_noise_4"])
@pytest.mark.parametrize("kind", ["logit", "tuned"])
def test_depth_matches_hugging_face(tiny_model, tiny_hf, batch, hf_pass, key, kind):
    lens = TunedLens.identity(tiny_model)
    lens.weight.copy_(torch.randn(lens.weight.shape, generator=torch.Generator().manual_seed(1)) / 8)
    _, hidden, _ = hf_pass(key)
    predictions = []
    with torch.no_grad():
        for layer in range(4):
            h = hidden[layer][:, 0]
            h = h + h @ lens.weight[layer] if kind == "tuned" and layer < 3 else h
            predictions.append(tiny_hf.classifier(tiny_hf.vit.layernorm(h)).argmax(-1))
    predictions = torch.stack(predictions, dim=1)
    found = prediction_depth(tiny_model, batch, key, lens=lens if kind == "tuned" else None, batch_size=7)
    assert found.depth.tolist() == [loop(row) for row in predictions.tolist()]
    assert found.prediction.tolist() == predictions[:, -1].tolist()
    assert len(set(found.depth.tolist())) > 2
    assert float(found.correct.float().mean()) == pytest.approx(evaluate(tiny_model, batch, key).accuracy)
    frame = found.to_frame(model="base", corruption=key, lens=kind)
    columns = ["model", "corruption", "lens", "image_id", "label", "prediction", "correct", "depth"]
    assert list(frame) == columns
    assert frame["depth"].tolist() == found.depth.tolist()


@pytest.fixture(scope="module")
def depths() -> pd.DataFrame:
    generator, parts = np.random.default_rng(0), []
    for model, shift in (("base", 0), ("gaussian_blur_4", -1)):
        for lens in ("logit", "tuned"):
            depth = np.clip(generator.integers(1, 7, 80) + shift, 0, 6)
            columns = {"correct": generator.random(80) < 0.7, "depth": depth}
            about = {"model": model, "corruption": "gaussian_blur_4", "lens": lens, "image_id": np.arange(80) + 5}
            parts.append(pd.DataFrame(about | columns))
    return pd.concat(parts, ignore_index=True)


def test_summary_matches_explicit_resampling(depths):
    found = depth_summary(depths.sample(frac=1, random_state=0), resamples=3000)
    found = found.set_index(["model", "corruption", "lens", "subset"])
    wide = depths.set_index(["model", "lens", "image_id"])
    one, two = (wide.loc[(model, "tuned")] for model in ("base", "gaussian_blur_4"))
    both = (one["correct"] & two["correct"]).to_numpy()
    rng = np.random.default_rng(1)
    for subset, kept in (("all", np.ones(80, bool)), ("both_correct", both)):
        row = found.loc["gaussian_blur_4", "gaussian_blur_4", "tuned", subset]
        change = (two["depth"] - one["depth"]).to_numpy()
        assert row["n"] == kept.sum()
        assert row["depth"] == pytest.approx(two["depth"].to_numpy()[kept].mean())
        assert row["change"] == pytest.approx(change[kept].mean())
        draws = []
        for _ in range(3000):
            rows = rng.choice(80, 80)
            draws.append(change[rows][kept[rows]].mean())
        np.testing.assert_allclose(
            row[["change_low", "change_high"]].to_numpy(float), np.quantile(draws, [0.025, 0.975]), atol=0.06
        )
    base = found.loc["base", "gaussian_blur_4", "logit", "all"]
    assert (base["change"], base["change_low"], base["change_high"]) == (0, 0, 0)
    assert found.loc["gaussian_blur_4", "gaussian_blur_4", "logit", "all"]["change_high"] < 0


def test_summary_refuses_what_cannot_be_paired(depths):
    with pytest.raises(ValueError, match="got 'large'"):
        depth_summary(depths, base="large")
    with pytest.raises(ValueError, match="lacks the columns lens"):
        depth_summary(depths.drop(columns="lens"))
    with pytest.raises(ValueError, match="lacks 1"):
        depth_summary(depths.iloc[1:])


def test_depth_needs_no_labels(tiny_model, batch):
    bare = ImageBatch(batch.images, torch.full_like(batch.labels, -1), batch.image_ids)
    found, known = (prediction_depth(tiny_model, images) for images in (bare, batch))
    assert torch.equal(found.depth, known.depth)
    assert not found.correct.any()
    reading, labelled = (compare_lenses(tiny_model, {"logit": None}, images)["logit"] for images in (bare, batch))
    assert torch.equal(reading.divergence, labelled.divergence)
    assert reading.probability.isnan().all()
    assert (reading.rank == -1).all()
    assert reading.first_correct_layer.isnan().all()
    readings = reading.to_frame(model="base", corruption="clean", lens="logit")
    assert set(lens_comparison_summary(readings, resamples=20)["quantity"]) == {"divergence"}
