"""Effect of a corruption on latents in two models, against float64 loops and explicit resampling."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from evaluation_saes import CHOSEN, float64_codes, random_sae
from scipy import stats

from mechvit.data import ImageBatch
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.saes import feature_change, match_features
from mechvit.saes.latents.matching import FeatureMatch

KEY = "gaussian_noise_4"


@pytest.fixture
def models(tiny_model):
    tuned = copy.deepcopy(tiny_model)
    with torch.no_grad():
        tuned.blocks[1].mlp.W_in.mul_(1.5)
    return {"base": tiny_model, "tuned": tuned}


def per_image(model, sae, pixels, tokens):
    """Codes of each image averaged over tokens, and how often each latent fires."""
    x = model.run_with_cache(pixels)[1]["blocks.1.hook_resid_post"][:, CHOSEN[tokens]]
    codes = float64_codes(sae, x)
    return codes.mean(1).numpy(), (codes > 0).double().mean((0, 1)).numpy()


@pytest.mark.parametrize("tokens", CHOSEN)
def test_change_matches_float64(models, batch, pixels, tokens):
    sae = random_sae("batchtopk", tokens=tokens)
    found = feature_change(models, sae, batch, KEY, seed=3, batch_size=7)
    moved = {}
    for name, model in models.items():
        clean, clean_rate = per_image(model, sae, pixels["clean"], tokens)
        corrupted, corrupted_rate = per_image(model, sae, pixels[KEY], tokens)
        own, moved[name] = found.models[name], corrupted - clean
        for got, wanted in (
            (own.clean, clean.mean(0)),
            (own.corrupted, corrupted.mean(0)),
            (own.difference, moved[name].mean(0)),
            (own.error, moved[name].std(0, ddof=1) / np.sqrt(24)),
        ):
            np.testing.assert_allclose(got, wanted, atol=1e-4)
        one_token = 1.01 / (24 * (1 if tokens == "cls" else 16))
        np.testing.assert_allclose(own.clean_rate, clean_rate, atol=one_token)
        np.testing.assert_allclose(own.rate, (clean_rate + corrupted_rate) / 2, atol=one_token)
    beyond = moved["tuned"] - moved["base"]
    np.testing.assert_allclose(found.models["tuned"].beyond, beyond.mean(0), atol=1e-4)
    np.testing.assert_allclose(found.models["tuned"].beyond_error, beyond.std(0, ddof=1) / np.sqrt(24), atol=1e-4)
    assert not found.models["base"].beyond.any()
    assert abs(beyond.mean(0)).max() > 0.05


def test_frame_and_intervals(models, batch, pixels):
    sae = random_sae()
    found = feature_change(models, sae, batch, KEY, seed=3)
    frame = found.to_frame(corruption=KEY)
    assert list(frame)[:3] == ["corruption", "model", "feature"]
    assert len(frame) == 2 * 96
    moved = (
        per_image(models["base"], sae, pixels[KEY], "all")[0]
        - per_image(models["base"], sae, pixels["clean"], "all")[0]
    )
    latent = int(np.abs(moved.mean(0)).argmax())
    rng = np.random.default_rng(0)
    draws = [moved[rng.choice(24, 24), latent].mean() for _ in range(4000)]
    row = frame.query("model == 'base' and feature == @latent").iloc[0]
    reach = row["high"] - row["low"]
    np.testing.assert_allclose(
        row[["low", "high"]].to_numpy(float), np.quantile(draws, [0.025, 0.975]), atol=0.15 * reach
    )


def test_q_is_the_adjusted_p_of_a_t_test(models, batch, pixels):
    """For every known latent, one model at a time; nothing that does not vary around 0 is a discovery."""
    sae = random_sae()
    frame = feature_change(models, sae, batch, KEY, seed=3).to_frame()
    moved = {}
    for name, model in models.items():
        moved[name] = per_image(model, sae, pixels[KEY], "all")[0] - per_image(model, sae, pixels["clean"], "all")[0]
    for name, column, values in (
        ("base", "q", moved["base"]),
        ("tuned", "q", moved["tuned"]),
        ("tuned", "beyond_q", moved["tuned"] - moved["base"]),
    ):
        p = np.nan_to_num(stats.ttest_1samp(values, 0).pvalue, nan=1.0)
        order = np.argsort(p)
        adjusted = np.empty(96)
        adjusted[order] = np.minimum(1, np.minimum.accumulate((p[order] * 96 / np.arange(1, 97))[::-1])[::-1])
        np.testing.assert_allclose(frame[frame["model"] == name][column], adjusted, atol=2e-3)
        assert 0 < (adjusted < 0.05).sum() < 96
    assert (frame.query("model == 'base'")["beyond_q"] == 1).all()
    dead = frame.query("model == 'base' and corrupted_rate == 0 and clean_rate == 0")
    assert len(dead)
    assert (dead["q"] == 1).all()


def test_matched_saes_are_compared_latent_by_latent(models, batch):
    """The tuned model's SAE is the base's with its latents in another order, one of them gone."""
    sae, other = random_sae(), random_sae()
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name in ("W_enc", "W_dec", "b_enc"):
            weight = getattr(sae, name)
            getattr(other, name).copy_(weight[:, order] if name == "W_enc" else weight[order])
        other.W_dec[5] = 0
    match = match_features(sae, other)
    assert isinstance(match, FeatureMatch)
    lost = int(order[5])
    assert (match.match < 0).nonzero().flatten().tolist() == [lost]
    both = feature_change(models, sae, batch, KEY)
    matched = feature_change(models, {"base": sae, "tuned": other}, batch, KEY, matches={"tuned": match.match})
    kept = torch.arange(96) != lost
    for name in ("clean", "difference", "error", "beyond", "rate"):
        one, two = (getattr(found.models["tuned"], name) for found in (both, matched))
        torch.testing.assert_close(one[kept], two[kept], atol=1e-6, rtol=1e-5)
        assert two[lost].isnan()


def test_refuses_what_cannot_be_compared(models, batch):
    sae = random_sae()
    with pytest.raises(ValueError, match="two images; got 2 and 1"):
        feature_change(models, sae, ImageBatch(batch.images[:1], batch.labels[:1], batch.image_ids[:1]), KEY)
    with pytest.raises(ValueError, match="every model needs an SAE; tuned"):
        feature_change(models, {"base": sae}, batch, KEY)
    with pytest.raises(ValueError, match="has another SAE than base"):
        feature_change(models, {"base": sae, "tuned": random_sae()}, batch, KEY)
    with pytest.raises(ValueError, match="same hook and tokens"):
        feature_change(models, {"base": sae, "tuned": random_sae(tokens="cls")}, batch, KEY)
    with pytest.raises(ValueError, match="for each of the 96 of base's SAE; that of tuned has 5"):
        feature_change(
            models,
            {"base": sae, "tuned": random_sae()},
            batch,
            KEY,
            matches={"tuned": torch.zeros(5, dtype=torch.int64)},
        )
    named = random_sae(checkpoint_hash=checkpoint_hash(models["base"]))
    with pytest.raises(ValueError, match="another model"):
        feature_change(models, named, batch, KEY)
    assert feature_change(models, named, batch, KEY, allow_other_model=True).images == 24
