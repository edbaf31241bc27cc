"""Bugs seen in other SAE libraries, each in one test that names it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sae_lens import SAE
from safetensors.torch import load_file

from mechvit.saes import ImageStreams, StreamConfig, TrainConfig, evaluate_sae, read_history, train_on
from mechvit.saes.evaluation.reconstruction import code_cosine
from mechvit.saes.training.checkpoints import load_checkpoint
from mechvit.saes.training.learner import Learner
from mechvit.saes.training.train import _sample, _start

CONFIG = TrainConfig(
    architectures=("batchtopk",), epochs=2, k=3, expansion_factor=4, lr=5e-3, train_batch_size_tokens=128
)


@pytest.fixture(scope="module")
def trained(make_streams, tmp_path_factory):
    out = tmp_path_factory.mktemp("saes") / "saes"
    return train_on(make_streams(steps=40), out, config=CONFIG, progress=None)["batchtopk"]


@pytest.mark.parametrize("fast", [True, False])
def test_the_auxiliary_loss_leaves_the_decoder_bias_out(make_pair, tokens, forward_backward, fast):
    """The residual that dead latents explain holds no b_dec, so a reconstruction with b_dec would count it twice."""
    sae, x = make_pair("batchtopk")[not fast], tokens()
    dead = torch.arange(96) < 30
    with torch.no_grad():
        sae.b_dec.fill_(5.0)
    out, _ = forward_backward(sae, x, dead)
    with torch.no_grad():
        pre = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc)[:, dead]
        best = (pre * sae.W_dec[dead].norm(dim=1)).topk(6).indices
        codes = torch.zeros_like(pre).scatter(1, best, pre.gather(1, best))
        residual = x - out.sae_out
        right, twice = ((residual - codes @ sae.W_dec[dead] - bias).square().sum(1).mean() for bias in (0, sae.b_dec))
    assert out.losses["auxiliary_reconstruction_loss"].item() == pytest.approx(float(right))
    assert float(twice) > 1.05 * float(right)


@pytest.mark.parametrize("fast", [True, False])
def test_batchtopk_keeps_no_negative_pre_activations(make_pair, tokens, forward_backward, fast):
    sae = make_pair("batchtopk", k=20, rare=4.0)[not fast]
    codes = forward_backward(sae, tokens())[0].feature_acts.to_dense().detach()
    pre = (tokens() - sae.b_dec) @ sae.W_enc + sae.b_enc
    assert int((pre > 0).sum()) < 20 * 300, "there must be too few positive ones, or nothing is shown"
    assert float(codes.min()) == 0
    assert torch.equal(codes != 0, pre > 0)


def test_the_threshold_of_batchtopk_survives_saving(trained):
    weights = load_file(trained / "sae_weights.safetensors")
    assert (weights["threshold"] > 0).all()
    assert torch.equal(SAE.load_from_disk(trained).threshold.detach(), weights["threshold"])


def test_the_threshold_is_calibrated_not_a_moving_average_from_zero(trained, make_streams):
    """sae-lens's own average would have come 1 - 0.99^80 = 55% of the way; L0 would be far above k."""
    x = torch.cat(list(make_streams().held_out()))
    with torch.no_grad():
        assert float((SAE.load_from_disk(trained).encode(x) > 0).sum(1).float().mean()) == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("fast", [True, False])
def test_k_is_taken_for_every_token_of_the_batch(make_pair, tokens, forward_backward, fast):
    sae = make_pair("batchtopk", k=5)[not fast]
    for n in (1, 40, 300):
        out, _ = forward_backward(sae, tokens(n))
        assert int((out.feature_acts.to_dense() != 0).sum()) == 5 * n


def test_explained_variance_is_about_each_dimensions_own_mean(tiny_model, tiny_images):
    """Dimensions with far-apart means: a zero SAE explains nothing about their own means, much about a common one."""
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    with torch.no_grad():
        tiny_model.blocks[1].mlp.b_out.add_(40 * torch.linspace(-1, 1, 32))
    config = StandardSAEConfig(d_in=32, d_sae=8)
    config.metadata = SAEMetadata(hook_name="blocks.1.hook_resid_post", hook_tokens="all")
    sae = StandardSAE(config)
    streams = ImageStreams(
        tiny_model, tiny_images, tiny_images, corruptions=(), config=StreamConfig(train_batch_size_tokens=8)
    )
    x = torch.cat(list(streams.held_out())).double()
    with torch.no_grad():
        sae.W_dec.zero_()
        sae.b_dec.copy_(x.mean(0))
    assert evaluate_sae(tiny_model, sae, tiny_images).explained_variance == pytest.approx(0, abs=1e-3)
    common = 1 - (x - x.mean(0)).square().sum() / (x - x.mean()).square().sum()
    assert common > 0.9


def test_the_check_in_training_is_about_each_dimensions_own_mean(make_streams, tmp_path):
    streams = make_streams(steps=20)
    offset = 50 * torch.linspace(-1, 1, 12)
    draw = streams.draw
    streams.draw = lambda *args, **kwargs: draw(*args, **kwargs) + offset
    out = train_on(streams, tmp_path / "saes", config=CONFIG, progress=None)["batchtopk"]
    x = torch.cat(list(streams.held_out())).double()
    with torch.no_grad():
        error = (SAE.load_from_disk(out)(x.float()).double() - x).square().sum()
    best = read_history(tmp_path / "saes").query("metric == 'explained_variance'")["value"].max()
    assert best == pytest.approx(float(1 - error / (x - x.mean(0)).square().sum()), abs=0.05)
    assert float(1 - error / (x - x.mean()).square().sum()) > best + 0.1


def test_cosine_is_over_latents_not_over_tokens(tokens):
    one, two = tokens(7, 12).clamp(min=0), tokens(7, 12, seed=1).clamp(min=0)
    found = code_cosine(one, two)
    expected = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(one, two, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.shape == (7,)


def test_training_gets_past_the_first_part_of_the_data(tiny_model, tiny_images):
    """Every image of every segment is trained on, every epoch: no part is read again in place of the next."""
    config = StreamConfig(
        images_per_batch=5, buffer_images=5, segment_images=6, train_batch_size_tokens=17, clean_fraction=1.0
    )
    streams = ImageStreams(tiny_model, tiny_images, tiny_images, corruptions=(), config=config)
    expected = torch.cat(list(streams.held_out())).unflatten(0, (24, 17))
    for epoch in range(2):
        rows = torch.cat(list(streams.epoch(epoch)))
        distance, place = torch.cdist(rows.double(), expected.flatten(0, 1).double()).min(1)
        assert float(distance.max()) < 1e-3
        assert set((place // 17).tolist()) == set(range(24))
        assert len(np.unique(place)) > 0.9 * len(rows)


def test_a_resumed_training_writes_no_stale_checkpoint(make_streams, tmp_path, monkeypatch):
    """After resuming, the newest checkpoint holds what the SAE has become since, not what it was resumed from."""
    streams, real = make_streams(steps=10), Learner.step

    class Cut(Exception):
        pass

    def cut_at(step):
        def stops(self, batch):
            if self.trainer.n_training_steps == step:
                raise Cut
            return real(self, batch)

        monkeypatch.setattr(Learner, "step", stops)
        with pytest.raises(Cut):
            train_on(streams, tmp_path / "saes", config=CONFIG, checkpoint_every=3, progress=None)
        (folder,) = (tmp_path / "saes.partial").glob("step-*")
        state = json.loads((folder / "state.json").read_text())
        return state["position"]["step"], load_file(folder / "batchtopk.safetensors")

    (first, one), (second, two) = cut_at(5), cut_at(8)
    assert (first, second) == (3, 6)
    assert not torch.equal(one["weights.W_enc"], two["weights.W_enc"])
    learners = _start(streams, CONFIG, _sample(streams, 512), torch.device("cpu"))
    monkeypatch.setattr(Learner, "step", real)
    for batch in list(streams.epoch(0))[:6]:
        learners[0].step(batch)
    assert torch.equal(learners[0].sae.W_enc.data, two["weights.W_enc"])
    again = _start(streams, CONFIG, _sample(streams, 512), torch.device("cpu"))
    assert load_checkpoint(tmp_path / "saes.partial", again).step == 6
    assert torch.equal(again[0].sae.W_enc.data, two["weights.W_enc"])
