"""Ablating latents: a planted one that carries the corruption, and references written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from evaluation_saes import empty_sae, float64_codes, random_sae
from torch.nn.functional import cross_entropy

from mechvit.data import Corruption, ImageBatch, corrupt, normalize
from mechvit.saes import ablate_features, feature_change, sensitive_features
from mechvit.saes.hook_site import sae_site
from mechvit.saes.latents.ablation import ablated
from mechvit.saes.latents.ablation_sets import FeatureSets
from mechvit.saes.latents.corruption_change import LatentChange
from mechvit.saes.splicing import read_site

KEY = "gaussian_noise_4"
HOOK = "blocks.1.hook_resid_post"
PLANTED = 17


class Plant:
    """Takes one direction out of the residual stream, and puts 60 times it there where the pixels are noisy."""

    def __init__(self, model):
        self.on = True
        direction = torch.randn(32, generator=torch.Generator().manual_seed(6))
        self.direction = -direction / direction.norm()
        model.embed.register_forward_pre_hook(self.look)
        model.blocks[1].hook_resid_post.add_hook(self.write, is_permanent=True)

    def look(self, module, inputs):
        self.noisy = inputs[0].diff(dim=-1).abs().mean((1, 2, 3)) > 0.2

    def write(self, residual, hook):
        residual = residual - (residual @ self.direction)[..., None] * self.direction
        return residual + 60 * (self.noisy & self.on)[:, None, None] * self.direction


@pytest.fixture
def planted(tiny_model):
    """A model that a corruption harms along one direction, an SAE with a latent for it, and images of two parts, whose
    labels are what the model says of the corrupted ones without the harm."""
    plant = Plant(tiny_model)
    sae = empty_sae(hook=HOOK)
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(96, 32, generator=generator)
    directions -= (directions @ plant.direction)[:, None] * plant.direction
    directions /= directions.norm(dim=1, keepdim=True)
    directions[PLANTED] = plant.direction
    with torch.no_grad():
        sae.W_enc.copy_(directions.T)
        sae.W_dec.copy_(directions)
        sae.b_enc.fill_(-0.01)
        sae.b_dec.zero_()
    colours, slopes = torch.rand(72, 3, 1, 1, generator=generator), torch.rand(72, 3, 1, 1, generator=generator)
    images = (0.7 * colours + 0.3 * slopes * torch.linspace(0, 1, 32)).expand(-1, -1, 32, -1).clone()
    ids = torch.arange(72)
    plant.on = False
    noisy = corrupt(images, KEY, ids, seed=0)
    with torch.no_grad():
        labels = tiny_model(normalize(noisy, tiny_model.image_processor)).argmax(-1)
    plant.on = True
    parts = [ImageBatch(images[rows], labels[rows], ids[rows]) for rows in (slice(0, 24), slice(24, None))]
    return tiny_model, sae, *parts


def test_the_planted_latent_alone_restores_accuracy(planted):
    model, sae, choose, measure = planted
    change = feature_change({"base": model}, sae, choose, KEY).models["base"]
    sets = sensitive_features(sae, change, 4, draws=6)
    assert int(sets.sensitive[0]) == PLANTED
    assert not (sets.controls == PLANTED).any()
    found = ablate_features(model, sae, measure, [KEY], sets, counts=(1, 4))
    accuracy = found.per_image.groupby(["corruption", "kind", "n", "draw"])["accuracy"].mean()
    untouched = accuracy[KEY, "untouched", 0, 0]
    assert untouched < 0.6
    assert accuracy[KEY, "sensitive", 1, 0] > 0.95
    assert accuracy[KEY, "control", 1].max() < untouched + 0.15
    clean = accuracy["clean"]
    assert clean["sensitive", 1, 0] == clean["untouched", 0, 0]  # it does not fire there
    summary = found.summary(resamples=200).set_index(["corruption", "kind", "n", "quantity"]).sort_index()
    assert summary.loc[(KEY, "sensitive", 1, "accuracy"), "beyond_low"] > 0.2
    assert summary.loc[(KEY, "sensitive", 1, "loss"), "change_high"] < 0
    to_mean = ablate_features(
        model, sae, measure, [KEY], sets, counts=(1,), target="clean_mean", clean_mean=change.clean
    ).per_image  # its clean mean is 0
    same = to_mean.query("corruption == @KEY and kind == 'sensitive'")["accuracy"].mean()
    assert same == accuracy[KEY, "sensitive", 1, 0]


@pytest.mark.parametrize("kind", ["standard", "batchtopk"])
def test_ablating_nothing_changes_no_bit(tiny_model, batch, kind):
    sae = random_sae(kind)
    seen = read_site(tiny_model, sae_site(tiny_model, sae), batch)
    codes = sae.encode(seen.x)
    none = torch.zeros(0, dtype=torch.int64)
    assert torch.equal(ablated(seen, sae.W_dec, codes, none, torch.zeros(96)), seen.untouched())
    dead = torch.arange(7)  # of random_sae
    assert torch.equal(ablated(seen, sae.W_dec, codes, dead, torch.zeros(96)), seen.untouched())
    live = torch.arange(20, 40)
    assert (ablated(seen, sae.W_dec, codes, live, torch.zeros(96)) - seen.untouched()).abs().max() > 1e-2


@pytest.mark.parametrize("tokens", ["all", "patches", "cls"])
@pytest.mark.parametrize("target", ["zero", "clean_mean"])
def test_outcomes_match_hugging_face(tiny_model, batch, hf_logits, tokens, target):
    sae = random_sae("batchtopk", tokens=tokens)
    generator = torch.Generator().manual_seed(0)
    mean = torch.rand(96, generator=generator)
    latents = 7 + torch.randperm(89, generator=generator)[:9].view(3, 3)
    sets = FeatureSets(
        sensitive=latents[0],
        controls=latents[1:],
        unmatched=latents[0][:0],
        sensitivity=torch.ones(96),
        rate=torch.full((96,), 0.2),
    )
    found = (
        ablate_features(
            tiny_model, sae, batch, [KEY], sets, counts=(1, 3), target=target, clean_mean=mean, seed=3, batch_size=7
        )
        .per_image.set_index(["corruption", "kind", "n", "draw", "image_id"])
        .sort_index()
    )
    W = sae.W_dec.detach().double()
    for key in ("clean", KEY):
        for kind, draw, row in (
            ("untouched", 0, latents[0][:0]),
            ("sensitive", 0, latents[0]),
            ("control", 1, latents[2]),
        ):
            for n in (1, 3) if kind != "untouched" else (0,):
                chosen = row[:n]

                def change(x, chosen=chosen):
                    codes = float64_codes(sae, x)
                    to = mean.double()[chosen] if target == "clean_mean" else 0
                    return (x.double() + (to - codes[..., chosen]) @ W[chosen]).float()

                logits, _ = hf_logits(key, tokens=tokens, change=change)
                rows = found.loc[key, kind, n, draw].loc[batch.image_ids.numpy()]
                loss = cross_entropy(logits, batch.labels, reduction="none")
                np.testing.assert_allclose(rows["loss"], loss, atol=2e-4)
                assert (rows["accuracy"] == (logits.argmax(-1) == batch.labels).numpy()).mean() > 0.95


def test_controls_have_the_frequency_of_what_they_stand_for(tiny_model, batch):
    sae = random_sae("batchtopk")
    change = feature_change({"base": tiny_model}, sae, batch, KEY).models["base"]
    sets = sensitive_features(sae, change, 8, draws=40, caliper=1.3, seed=1)
    moved = (change.corrupted - change.clean).abs() * sae.W_dec.detach().double().norm(dim=1)
    assert len(sets.sensitive) == 8
    assert (moved[sets.sensitive].diff() <= 0).all()
    looked_at = {*sets.sensitive.tolist(), *sets.unmatched.tolist()}
    assert looked_at == set(moved.argsort(descending=True)[: len(looked_at)].tolist())
    for draw in sets.controls:
        assert len(set(draw.tolist())) == 8
        assert not set(draw.tolist()) & looked_at
    ratio = (change.rate[sets.controls] / change.rate[sets.sensitive]).log().abs()
    assert ratio.max() <= math.log(1.3) + 1e-6
    assert max(len(set(sets.controls[:, place].tolist())) for place in range(8)) > 1
    assert sets.mean_rate("control", 8) == pytest.approx(sets.mean_rate("sensitive", 8), rel=0.3)
    again = sensitive_features(sae, change, 8, draws=40, caliper=1.3, seed=1)
    assert torch.equal(again.controls, sets.controls)
    frame = sets.to_frame(model="base")
    assert list(frame) == ["model", "kind", "draw", "place", "feature", "sensitivity", "rate", "matched"]
    assert len(frame) == 41 * 8


def made_change(rate: list[float], moved: list[float]) -> LatentChange:
    zero = torch.zeros(len(rate), dtype=torch.float64)
    rates = torch.tensor(rate, dtype=torch.float64)
    return LatentChange(
        clean=zero,
        corrupted=torch.tensor(moved, dtype=torch.float64),
        error=zero,
        clean_rate=rates,
        corrupted_rate=rates,
        beyond=zero,
        beyond_error=zero,
    )


def test_latents_without_an_equal_are_left_out_the_least_sensitive_first():
    """Latent 0 fires most and alone; 1 and 2 share one possible control, which the more sensitive one gets."""
    sae = random_sae()
    rate, moved = (
        [0.9, 0.2, 0.2, 0.21, 0.05, 0.05, 0.05, *[0.001] * 89],
        [9.0, 7.0, 8.0, 0.0, 6.0, 0.1, 0.2, *[0.0] * 89],
    )
    with torch.no_grad():
        sae.W_dec[:] = torch.nn.functional.normalize(torch.ones_like(sae.W_dec), dim=1)
    sets = sensitive_features(sae, made_change(rate, moved), 2, draws=6)
    assert sets.sensitive.tolist() == [2, 4]
    assert sets.unmatched.tolist() == [0, 1]
    assert (sets.controls[:, 0] == 3).all()
    assert set(sets.controls[:, 1].tolist()) == {5, 6}
    alone = [0.9 * 0.7**i for i in range(96)]
    with pytest.raises(ValueError, match=r"no sensitive latent has a control .* within a factor of 1\.2"):
        sensitive_features(sae, made_change(alone, moved), 3)


def test_summary_matches_explicit_resampling(tiny_model, batch):
    sae = random_sae()
    change = feature_change({"base": tiny_model}, sae, batch, KEY).models["base"]
    found = ablate_features(tiny_model, sae, batch, [KEY], sensitive_features(sae, change, 16, draws=3), counts=(16,))
    row = found.summary(resamples=4000).set_index(["corruption", "kind", "n", "quantity"]).sort_index()
    row = row.loc[(KEY, "sensitive", 16, "loss")]
    wide = found.per_image.query("corruption == @KEY").pivot(
        index="image_id", columns=["kind", "n", "draw"], values="loss"
    )
    wide = wide.sort_index(axis=1)
    own, controls, untouched = wide["sensitive", 16, 0], wide["control", 16].mean(axis=1), wide["untouched", 0, 0]
    rng = np.random.default_rng(5)
    for name, values in (("", own), ("change", own - untouched), ("beyond", own - controls)):
        values = values.to_numpy()
        assert row[name or "value"] == pytest.approx(values.mean(), abs=1e-6)
        draws = [values[rng.choice(24, 24)].mean() for _ in range(4000)]
        ends = row[[f"{name}_low".strip("_"), f"{name}_high".strip("_")]].to_numpy(float)
        np.testing.assert_allclose(ends, np.quantile(draws, [0.025, 0.975]), atol=0.08 * np.ptp(draws))
    control = found.summary(resamples=10).set_index(["corruption", "kind", "n", "quantity"]).sort_index()
    control = control.loc[(KEY, "control", 16, "loss")]
    means = wide["control", 16].mean()
    assert control["rate"] == pytest.approx(float(found.sets.rate[found.sets.controls].mean()))
    assert (control["draw_low"], control["draw_high"]) == pytest.approx((means.min(), means.max()))


def test_refuses_what_cannot_be_ablated(tiny_model, batch):
    sae = random_sae()
    change = feature_change({"base": tiny_model}, sae, batch, KEY).models["base"]
    sets = sensitive_features(sae, change, 4, draws=2)
    with pytest.raises(ValueError, match=r"choose at most \d+"):
        sensitive_features(sae, change, 60)
    with pytest.raises(ValueError, match="at least 1"):
        sensitive_features(sae, change, 4, draws=0)
    for wrong, message in (
        ({"counts": (5,)}, "between 1 and the 4 latents"),
        ({"counts": ()}, "between 1 and the 4 latents"),
        ({"target": "mean", "counts": (1,)}, "zero or clean_mean"),
        ({"target": "clean_mean", "counts": (1,)}, "needs clean_mean"),
    ):
        with pytest.raises(ValueError, match=message):
            ablate_features(tiny_model, sae, batch, [Corruption.parse(KEY)], sets, **wrong)
