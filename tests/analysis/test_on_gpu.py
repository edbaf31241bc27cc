"""The analyses that isolate a gain, on a GPU: what they give there is what they give on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from shifted_models import shifted

from mechvit.analysis import (
    attribution_patching,
    compare_lenses,
    fit_shared_probe,
    foils,
    head_links,
    interpolate_weights,
    kinship,
    linear_cka,
    patch_models,
    patch_neurons,
    score_outcomes,
    steer,
    steering_directions,
    swap_weights,
    train_tuned_lens,
    with_probe,
)
from mechvit.analysis.behaviour.performance import score
from mechvit.models import graft_head

NOISE = "gaussian_noise_2"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
CLOSE = {"rtol": 1e-3, "atol": 2e-3}


@pytest.fixture
def pairs(tiny_model):
    """The base and a tuned model, on the CPU and on the GPU."""
    tuned = shifted(copy.deepcopy(tiny_model))
    return [[copy.deepcopy(model).to(device) for model in (tiny_model, tuned)] for device in ("cpu", "cuda")]


def test_patching_and_its_approximation(pairs, batch):
    exact = [patch_models(*pair, batch, NOISE, tokens=("all", "patches")) for pair in pairs]
    torch.testing.assert_close(exact[1].logit_difference, exact[0].logit_difference, **CLOSE)
    found = [attribution_patching(*pair, batch, NOISE) for pair in pairs]
    torch.testing.assert_close(found[1].effect, found[0].effect, **CLOSE)
    torch.testing.assert_close(found[1].neuron_effect, found[0].neuron_effect, **CLOSE)
    neurons = [patch_neurons(*pair, batch, NOISE, [(0, 3), (2, 5)]) for pair in pairs]
    torch.testing.assert_close(neurons[1].exact, neurons[0].exact, **CLOSE)
    heads = [head_links(*pair, batch, NOISE, patch_models(*pair, batch, NOISE, kinds=("head",))) for pair in pairs]
    for key, values in heads[0].numbers.items():
        torch.testing.assert_close(heads[1].numbers[key], values, **CLOSE)


def test_scores_of_labels_on_the_cpu():
    logits, labels, ids = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, -1]), torch.arange(6)
    foil = foils(labels, logits)
    here, there = (score_outcomes(values, labels, foil, ids) for values in (logits, logits.cuda()))
    assert foils(labels, logits.cuda()).tolist() == foil.tolist()
    assert there.correct.tolist() == here.correct.tolist()
    torch.testing.assert_close(there.logit_difference, here.logit_difference, equal_nan=True)
    found = score(logits[:5].cuda(), labels[:5], ids[:5])
    assert found.rank.tolist() == score(logits[:5], labels[:5], ids[:5]).rank.tolist()


def test_weights(pairs, batch):
    swaps = [swap_weights(*pair, batch, [NOISE]) for pair in pairs]
    for key, outcomes in swaps[0].outcomes.items():
        torch.testing.assert_close(swaps[1].outcomes[key].logit_difference, outcomes.logit_difference, **CLOSE)
    lines = [interpolate_weights(*pair, batch, [NOISE], alphas=(0.5, 1.25)) for pair in pairs]
    for key, outcomes in lines[0].outcomes.items():
        torch.testing.assert_close(lines[1].outcomes[key].loss, outcomes.loss, **CLOSE)


def test_steering(pairs, batch):
    found = []
    for base, tuned in pairs:
        directions = steering_directions(base, batch, NOISE, hook_names=["blocks.1.hook_resid_post"])
        found.append(steer(base, tuned, batch, [NOISE], directions, scales=(1.0,), controls=1))
    for key, outcomes in found[0].outcomes.items():
        torch.testing.assert_close(found[1].outcomes[key].logit_difference, outcomes.logit_difference, **CLOSE)


def test_representations(pairs, batch):
    similar = [linear_cka(*pair, batch, NOISE, tokens="mean", groups=4) for pair in pairs]
    torch.testing.assert_close(similar[1].value, similar[0].value, **CLOSE)
    divergences = []
    for base, _ in pairs:
        lens = train_tuned_lens(base, batch, batch, [NOISE])
        read = compare_lenses(base, {"logit": None, "tuned": lens}, batch, NOISE)
        divergences.append({name: reading.divergence.mean() for name, reading in read.items()})
    for name, value in divergences[0].items():
        torch.testing.assert_close(divergences[1][name], value, rtol=0.1, atol=1e-2)


def test_heads_and_kinship(pairs, batch):
    found = [kinship(*pair) for pair in pairs]
    assert found[1].value == pytest.approx(found[0].value, abs=1e-4)
    pixels = torch.randn(2, 3, 32, 32)
    grafted = [graft_head(*pair) for pair in pairs]
    torch.testing.assert_close(grafted[1](pixels).cpu(), grafted[0](pixels), **CLOSE)
    probed = [with_probe(base, fit_shared_probe({"base": base, "tuned": tuned}, batch)) for base, tuned in pairs]
    torch.testing.assert_close(probed[1](pixels).cpu(), probed[0](pixels), rtol=1e-2, atol=5e-2)
