"""One SAE in training: its start from data, its steered sparsity, its schedule, what early stopping remembers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sae_lens import BatchTopKTrainingSAE, StandardTrainingSAE
from scipy.optimize import minimize

from mechvit.saes.config import TrainConfig
from mechvit.saes.training.initialisation import geometric_median, start_from_data
from mechvit.saes.training.learner import STEERING_RATE, build
from mechvit.saes.training.sparse_step import FastBatchTopKTrainingSAE, FastStandardTrainingSAE

D, D_SAE, BATCH = 12, 96, 256


def make(architecture, steps=100, **changes):
    settings = {"expansion_factor": 8, "k": 4, "train_batch_size_tokens": BATCH, "epochs": 1, "lr": 3e-3}
    config = TrainConfig(architectures=(architecture,), **(settings | changes))
    torch.manual_seed(0)
    return build(config.saes({"hook": D})[0], D, steps, config, torch.device("cpu"), slice(None))


@pytest.fixture
def sample(tokens):
    """1,000 raw tokens, and what scales their mean norm to sqrt(d)."""
    x = tokens(1000, seed=99, dtype=torch.float32)
    return x, math.sqrt(D) / float(x.norm(dim=-1).mean())


def started(architecture, sample, steps=100, **changes):
    learner = make(architecture, steps, **changes)
    start_from_data(learner, *sample)
    return learner


@torch.no_grad()
def stock_codes(learner, x):
    """The codes of the stock classes' dense encoder, part by part as in training."""
    scaled = x * learner.trainer.activation_scaler.scaling_factor
    return torch.cat([learner.sae.encode(part) for part in scaled.split(BATCH)])


@torch.no_grad()
def stock_loss(learner, x):
    scaled = x * learner.trainer.activation_scaler.scaling_factor
    return float((learner.sae.decode(stock_codes(learner, x)) - scaled).pow(2).sum(-1).mean())


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
@pytest.mark.parametrize("fast", [True, False])
def test_start_from_data(sample, architecture, fast):
    learner, (x, scale) = started(architecture, sample, fast=fast), sample
    torch.testing.assert_close(learner.sae.b_dec.data, (x.double().mean(0) * scale).float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(learner.sae.W_dec.norm(dim=1), torch.ones(D_SAE))
    torch.testing.assert_close(
        torch.cosine_similarity(learner.sae.W_enc.T, learner.sae.W_dec), torch.ones(D_SAE), rtol=0, atol=1e-5
    )
    fires = (stock_codes(learner, x) > 0).float()
    assert float(fires.sum(1).mean()) == pytest.approx(4, rel=0.05)
    if architecture == "standard":  # every latent on the same share of the tokens
        assert fires.sum(0).sub(1000 * 4 / D_SAE).abs().max() <= 2
    best = stock_loss(learner, x)
    assert best < float((x * scale - learner.sae.b_dec.detach()).pow(2).sum(-1).mean())
    for factor in (0.97, 1.03):
        other = started(architecture, sample, fast=fast)
        other.sae.W_enc.data *= factor
        other.sae.b_enc.data *= factor
        assert stock_loss(other, x) > best


def test_b_dec_can_start_at_the_geometric_median(tokens):
    """Against scipy's minimum of the summed distances, on tokens with outliers that pull the mean away."""
    x = tokens(300)
    x[:20] += 50
    found = geometric_median(x)
    best = minimize(lambda p: np.linalg.norm(x.numpy() - p, axis=1).sum(), x.mean(0).numpy(), method="BFGS").x
    np.testing.assert_allclose(found.numpy(), best, atol=1e-4)
    assert np.linalg.norm(best - x.mean(0).numpy()) > 1
    learner = make("batchtopk", b_dec_init="geometric_median")
    start_from_data(learner, x.float(), 0.5)
    torch.testing.assert_close(learner.sae.b_dec.data, 0.5 * found.float(), rtol=0, atol=1e-4)


def test_the_decoder_can_start_at_tokens(sample):
    x, scale = sample
    learner = started("batchtopk", sample, decoder_init="data")
    centred = torch.nn.functional.normalize((x - x.mean(0)) * scale, dim=1)
    cosine = learner.sae.W_dec.detach() @ centred.T
    torch.testing.assert_close(cosine.max(1).values, torch.ones(D_SAE), rtol=0, atol=1e-5)
    assert len(cosine.argmax(1).unique()) > 0.8 * D_SAE


def test_start_needs_activations_that_vary():
    with pytest.raises(ValueError, match="the activations do not vary"):
        start_from_data(make("batchtopk"), torch.ones(300, D), 1.0)


def test_start_lets_every_latent_fire_on_a_small_sample(tokens):
    learner = started("standard", (tokens(20, dtype=torch.float32), 1.0), k=1)
    assert (stock_codes(learner, tokens(20, dtype=torch.float32)) > 0).sum(0).tolist() == [1] * D_SAE


def train(learner, tokens, steps):
    """L0 and the sparsity coefficient after each step."""
    l0, l1 = [], []
    for step in range(steps):
        batch = tokens(BATCH, seed=step, dtype=torch.float32)
        l0.append(float((stock_codes(learner, batch) > 0).sum()) / BATCH)
        learner.step(batch)
        l1.append(learner.coefficient)
    return torch.tensor(l0), torch.tensor(l1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("first_l1", "bias", "fast"),
    [
        (0.03, 0.7, True),
        (10.0, 0.0, False),
        pytest.param(0.03, 0.7, False, marks=pytest.mark.slow),
        pytest.param(10.0, 0.0, True, marks=pytest.mark.slow),
    ],
)
def test_steering_brings_l0_to_k(tokens, sample, first_l1, bias, fast):
    learner = started("standard", sample, steps=2000, fast=fast)
    learner.set_coefficient(first_l1)
    learner.sae.b_enc.data += bias
    l0, l1 = train(learner, tokens, 600)
    assert max(l0[:150].max() / 4, 4 / l0[:150].min()) > 2  # it had somewhere to come from
    assert float(l0[-100:].mean()) == pytest.approx(4, rel=0.1)
    assert float((l1[1:] / l1[:-1]).log().abs().max()) <= STEERING_RATE * 1.001


def test_a_fixed_coefficient_is_not_steered(tokens, sample):
    learner = started("standard", sample, steps=40, l1_coefficient=0.3, l1_warm_up_fraction=0.25)
    assert not learner.spec.steered
    _, l1 = train(learner, tokens, 40)
    torch.testing.assert_close(l1[:10], 0.3 * torch.arange(1, 11) / 10)
    assert l1[10:].tolist() == pytest.approx([0.3] * 30)


def test_a_batchtopk_sae_has_no_coefficient(tokens, sample):
    learner = started("batchtopk", sample)
    l0, l1 = train(learner, tokens, 3)
    assert l0.tolist() == [4, 4, 4]
    assert l1.isnan().all()
    assert not learner.spec.steered


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
@pytest.mark.parametrize(("fraction", "warm_up"), [(0.0, 0), (0.1, 4), (0.999, 39)])
def test_the_learning_rate_rises_and_anneals_to_its_end(tokens, sample, architecture, fraction, warm_up):
    learner = started(architecture, sample, steps=20, epochs=2, lr_end=1e-4, warm_up_fraction=fraction)
    rates = []
    for step in range(40):
        rates.append(learner.trainer.optimizer.param_groups[0]["lr"])
        learner.step(tokens(BATCH, seed=step, dtype=torch.float32))
    rates.append(learner.trainer.optimizer.param_groups[0]["lr"])
    rise = [3e-3 * (i + 1) / warm_up for i in range(warm_up)]
    steps = 40 - warm_up
    fall = [1e-4 + (3e-3 - 1e-4) * (1 + math.cos(math.pi * i / steps)) / 2 for i in range(steps + 1)]
    assert rates == pytest.approx(rise + fall, rel=1e-6)
    assert learner.trainer.n_training_steps == 40
    assert learner.trainer.n_training_samples == 40 * BATCH


def test_build_takes_what_the_configuration_says():
    for fast, classes in (
        (True, (FastStandardTrainingSAE, FastBatchTopKTrainingSAE)),
        (False, (StandardTrainingSAE, BatchTopKTrainingSAE)),
    ):
        learners = [make(name, steps=30, fast=fast, dead_after_epochs=1.5) for name in ("standard", "batchtopk")]
        assert tuple(type(learner.sae) for learner in learners) == classes
        for learner in learners:
            assert (learner.sae.cfg.d_in, learner.sae.cfg.d_sae) == (D, D_SAE)
            assert learner.trainer.cfg.dead_feature_window == 45
            assert not learner.trainer.cfg.logger.log_to_wandb
    assert learners[1].sae.cfg.k == 4
    with pytest.raises(ValueError, match=r"at most the 96 latents of the SAE .*; got 97"):
        make("batchtopk", k=97)


def test_remembers_the_best_epoch_and_stops_after_patience(tokens, sample):
    learner = started("batchtopk", sample, patience=2)
    weights = []
    for epoch, score in enumerate([0.2, 0.5, 0.4, 0.6, 0.6]):
        learner.step(tokens(BATCH, seed=epoch, dtype=torch.float32))
        weights.append(learner.sae.W_enc.detach().clone())
        learner.remember(epoch, {"explained_variance": score, "l0": 4.0})
        assert not learner.stopped
    assert (learner.best_epoch, learner.best_score, learner.stale_epochs) == (3, 0.6, 1)
    learner.step(tokens(BATCH, seed=9, dtype=torch.float32))
    learner.remember(5, {"explained_variance": 0.1, "l0": 4.0})
    assert learner.stopped
    assert torch.equal(learner.best_weights["W_enc"], weights[3])  # a copy, which later steps leave alone
    assert not torch.equal(weights[4], weights[3])
    assert learner.best_weights.keys() == learner.sae.state_dict().keys() >= {"topk_threshold"}


def test_a_steered_sae_counts_only_once_it_is_sparse():
    learner = make("standard", patience=1)
    for epoch in range(3):
        learner.remember(epoch, {"explained_variance": 0.9, "l0": 5.01})
        assert (learner.best_epoch, learner.stale_epochs, learner.stopped) == (-1, 0, False)
    learner.remember(3, {"explained_variance": 0.5, "l0": 5.0})
    assert (learner.best_epoch, learner.best_score) == (3, 0.5)
    learner.remember(4, {"explained_variance": 0.4, "l0": 3.0})
    assert learner.stopped


@pytest.mark.parametrize(("architecture", "changes"), [("standard", {"l1_coefficient": 0.1}), ("batchtopk", {})])
def test_other_saes_count_whatever_their_l0(architecture, changes):
    learner = make(architecture, **changes)
    learner.remember(0, {"explained_variance": 0.9, "l0": 50.0})
    assert (learner.best_epoch, learner.best_score) == (0, 0.9)
