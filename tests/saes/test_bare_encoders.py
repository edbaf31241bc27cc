"""SAEs of encoders without a head: reconstruction, latents and pages as they are, and answers through a probe."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from evaluation_saes import CORRUPTIONS, random_sae

from mechvit import HookedViT
from mechvit.analysis import evaluate, fit_shared_probe, steer, with_probe
from mechvit.models import graft_head
from mechvit.models.checkpoints.fingerprint import checkpoint_hash
from mechvit.saes import browse_features, evaluate_saes
from mechvit.saes.latents.steering import sae_steering_direction


@pytest.fixture
def bare(tiny_hf, tiny_processor) -> HookedViT:
    model = transformers.ViTModel(tiny_hf.config, add_pooling_layer=False).eval()
    model.load_state_dict(tiny_hf.vit.state_dict())
    return HookedViT.from_hf(model, tiny_processor)


def own_sae(model):
    """An SAE that says that it was trained on the model."""
    sae = random_sae("standard")
    sae.cfg.metadata.checkpoint_hash = checkpoint_hash(model)
    return sae


def test_the_reconstruction_is_that_of_the_classifier_s_encoder(bare, tiny_model, tiny_images):
    sae = random_sae("standard")
    found, other = (
        evaluate_saes(model, {"a": sae}, tiny_images, CORRUPTIONS[:1], top_images=2) for model in (bare, tiny_model)
    )
    own, known = found.quality["a", "clean"], other.quality["a", "clean"]
    assert own.accuracy is own.accuracy_recovered is None
    assert known.accuracy is not None
    assert (own.explained_variance, own.l0, own.cosine) == (known.explained_variance, known.l0, known.cosine)
    assert found.baselines == {}
    assert torch.equal(found.features["a"].top_image, other.features["a"].top_image)


def test_a_probe_gives_an_encoder_s_saes_their_answers(bare, tiny_images):
    """Its own SAEs are known for its own through any head, and those of another encoder are not."""
    sae = own_sae(bare)
    head = fit_shared_probe({"bare": bare}, tiny_images)
    probed = with_probe(bare, head)
    found = evaluate_saes(probed, {"a": sae}, tiny_images, CORRUPTIONS[:1])
    quality = found.quality["a", "clean"]
    assert found.baselines["untouched", "clean"].accuracy == pytest.approx(evaluate(probed, tiny_images).accuracy)
    assert quality.accuracy is not None
    assert (
        quality.explained_variance
        == evaluate_saes(bare, {"a": sae}, tiny_images, []).quality["a", "clean"].explained_variance
    )
    changed = copy.deepcopy(probed)
    with torch.no_grad():
        changed.blocks[0].mlp.fc1.weight.add_(0.01)
    with pytest.raises(ValueError, match="was trained on another model"):
        evaluate_saes(changed, {"a": sae}, tiny_images, [])


def test_a_grafted_head_keeps_the_encoder_s_saes(bare, tiny_model, tiny_images):
    sae = own_sae(bare)
    grafted = graft_head(bare, tiny_model)
    assert evaluate_saes(grafted, {"a": sae}, tiny_images, []).quality["a", "clean"].accuracy is not None
    folded = copy.deepcopy(grafted).process_weights_(center_writing_weights=True)
    with pytest.raises(ValueError, match="was trained on another model"):
        evaluate_saes(folded, {"a": sae}, tiny_images, [])
    final = own_sae(bare)
    final.cfg.metadata.hook_name = "ln_final.hook_normalized"  # the head's own, which the graft took over
    with pytest.raises(ValueError, match="was trained on another model"):
        evaluate_saes(grafted, {"a": final}, tiny_images, [])


def test_latents_of_a_bare_encoder_are_browsed(bare, tiny_images):
    found = browse_features({"a": (bare, own_sae(bare))}, tiny_images, CORRUPTIONS[:1])
    names = tuple(tiny_images.features["label"].names)
    assert found.class_names == names[:5]  # those that have images
    assert torch.equal(found.labels, torch.tensor(tiny_images["label"]))
    head = fit_shared_probe({"bare": bare}, tiny_images)
    probed = browse_features({"a": (with_probe(bare, head), own_sae(bare))}, tiny_images, CORRUPTIONS[:1])
    assert probed.class_names == names


def test_a_bare_encoder_is_steered_by_its_latents_through_a_probe(bare, tiny_images):
    sae = own_sae(bare)
    direction = sae_steering_direction(bare, sae, tiny_images, "gaussian_noise_4", n_latents=4)
    probed = with_probe(bare, fit_shared_probe({"bare": bare}, tiny_images))
    assert torch.equal(
        sae_steering_direction(probed, sae, tiny_images, "gaussian_noise_4", n_latents=4).vector, direction.vector
    )
    found = steer(probed, probed, tiny_images, ["gaussian_noise_4"], [direction], scales=[1.0], controls=0)
    assert len(found.to_frame()) == 2 * len(tiny_images)
