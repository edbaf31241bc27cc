"""Directions of few latents against sums written out in float64."""

from __future__ import annotations

import pytest
import torch
from evaluation_saes import CHOSEN, float64_codes, identity_sae, random_sae

from mechvit.analysis import steer, steering_direction
from mechvit.data import corrupt, normalize
from mechvit.saes import sae_steering_direction

NOISE = "gaussian_noise_4"


def differences(model, sae, batch, tokens):
    """Mean clean minus mean corrupted activation of every latent, from whole caches."""
    name, means = sae.cfg.metadata.hook_name, []
    for key in ("clean", NOISE):
        pixels = normalize(corrupt(batch.images, key, batch.image_ids, seed=3), model.image_processor)
        with torch.no_grad():
            resid = model.run_with_cache(pixels)[1][name][:, CHOSEN[tokens]]
        means.append(float64_codes(sae, resid).flatten(0, 1).mean(0))
    return means[0] - means[1]


@pytest.mark.parametrize("kind", ["standard", "batchtopk"])
@pytest.mark.parametrize("tokens", CHOSEN)
def test_directions_match_sums(tiny_model, batch, kind, tokens):
    sae = random_sae(kind, tokens=tokens)
    moved = differences(tiny_model, sae, batch, tokens)
    decoder = sae.W_dec.detach().double()
    writes = moved.abs() * decoder.norm(dim=1)
    assert (writes > 0).sum() > 20
    for n in (1, 5, sae.cfg.d_sae):
        order = writes.argsort(descending=True)[:n]
        wanted = sum(moved[j] * decoder[j] for j in order.tolist())
        found = sae_steering_direction(tiny_model, sae, batch, NOISE, n_latents=n, batch_size=7, seed=3)
        torch.testing.assert_close(found.vector[0].double(), wanted, rtol=1e-4, atol=1e-5)
        assert (found.hook_name, found.tokens, found.source) == ("blocks.1.hook_resid_post", tokens, "sae")


def test_all_latents_of_a_perfect_sae_are_the_mean_difference(tiny_model, batch):
    sae = identity_sae()
    found = sae_steering_direction(tiny_model, sae, batch, NOISE, n_latents=sae.cfg.d_sae, seed=3)
    plain = steering_direction(tiny_model, batch, NOISE, hook_name="blocks.1.hook_resid_post", seed=3)
    torch.testing.assert_close(found.vector, plain.vector, rtol=1e-4, atol=1e-5)
    steered = steer(tiny_model, tiny_model, batch, [NOISE], [found, plain], scales=(2,), controls=0)
    same, other = (out.logit_difference for (key, _), out in steered.outcomes.items() if key == NOISE)
    torch.testing.assert_close(same, other, rtol=1e-3, atol=1e-3)


def test_a_rescaled_latent_changes_nothing(tiny_model, batch):
    sae, other = random_sae(), random_sae()
    factor = torch.linspace(0.2, 5, other.cfg.d_sae)
    with torch.no_grad():
        other.W_enc.mul_(factor)
        other.b_enc.mul_(factor)
        other.W_dec.div_(factor[:, None])
    one, two = (sae_steering_direction(tiny_model, s, batch, NOISE, n_latents=6).vector for s in (sae, other))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused(tiny_model, batch):
    for n in (0, 97):
        with pytest.raises(ValueError, match=f"n_latents must be 1 to 96, the SAE's latents; got {n}"):
            sae_steering_direction(tiny_model, random_sae(), batch, NOISE, n_latents=n)
    inside = random_sae(d_in=64, hook="blocks.1.mlp.hook_post")
    with pytest.raises(ValueError, match="must be one of a block's"):
        sae_steering_direction(tiny_model, inside, batch, NOISE)
    foreign = random_sae(checkpoint_hash="0" * 64, model_name="another")
    with pytest.raises(ValueError, match="was trained on another model"):
        sae_steering_direction(tiny_model, foreign, batch, NOISE)
    assert sae_steering_direction(tiny_model, foreign, batch, NOISE, allow_other_model=True).norm > 0
