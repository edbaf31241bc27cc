"""SAEs on several models: each model's activations are those of its own pixels, or the settings are named."""

from __future__ import annotations

import json

import pytest
import torch
from evaluation_saes import random_sae
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

from mechvit import HookedViT
from mechvit.data import Corruption, load_images, prepare
from mechvit.saes import ImageStreams, MixedStreams, StreamConfig, browse_features, feature_change
from mechvit.saes.evaluation.evaluate import sae_features

HOOK = "blocks.1.hook_resid_post"
BLUR = Corruption("gaussian_blur", 2)


@pytest.fixture
def models(tiny_hf):
    """One model twice, with two processors: all that differs are the pixels."""
    square = ViTImageProcessorPil(size={"height": 32, "width": 32})
    crop = CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    return {name: HookedViT.from_hf(tiny_hf, image_processor=each) for name, each in (("a", square), ("b", crop))}


@pytest.fixture(scope="module")
def raw():
    images = load_images("photos", "test", limit=16, image_size=50)
    return images.map(lambda row: {"label": row["label"] % 5}, keep_in_memory=True, load_from_cache_file=False)


def residuals(model, raw):
    """The residuals of transformers' own pixel values."""
    pixels = model.image_processor([row["image"] for row in raw], return_tensors="pt")["pixel_values"]
    return model.run_with_cache(pixels)[1][HOOK]


@pytest.mark.long
def test_mixed_streams_hold_each_models_own_tokens(models, raw):
    """`train_sae --also-model`: the first model's pixels were shown to all."""
    images = prepare(raw, [model.image_processor for model in models.values()])
    config = StreamConfig(
        train_batch_size_tokens=40, images_per_batch=5, buffer_images=6, calibration_images=7, clean_fraction=1.0
    )
    streams = [ImageStreams(model, images, images, corruptions=(), config=config) for model in models.values()]
    mixed = MixedStreams(streams, batch_size=40)
    expected = torch.cat([residuals(model, raw).flatten(0, 1) for model in models.values()])
    torch.testing.assert_close(torch.cat(list(mixed.held_out())), expected, rtol=0, atol=1e-4)
    abouts = mixed.about()
    assert [each["size"] for each in abouts["processors"]] == [{"height": 32, "width": 32}, {"shortest_edge": 40}]
    assert streams[0].about()["data_fingerprint"] != streams[1].about()["data_fingerprint"]


@pytest.mark.parametrize("kind", ["raw", "prepared"])
def test_feature_change_reads_each_models_own_pixels(models, raw, kind):
    images = prepare(raw, [model.image_processor for model in models.values()]) if kind == "prepared" else raw
    sae = random_sae("batchtopk", tokens="all")
    together = feature_change(models, sae, images, BLUR, allow_other_model=True).models
    for name, model in models.items():
        alone = feature_change({name: model}, sae, raw, BLUR, allow_other_model=True).models[name]
        torch.testing.assert_close(together[name].clean, alone.clean, rtol=0, atol=1e-6)
        torch.testing.assert_close(together[name].difference, alone.difference, rtol=0, atol=1e-6)
        codes = sae.encode(residuals(model, raw)).double().mean(1)
        torch.testing.assert_close(alone.clean, codes.mean(0), rtol=0, atol=1e-4)
    assert (together["a"].clean - together["b"].clean).abs().max() > 0.01


def test_latents_are_shown_on_one_picture_only_of_models_that_resize_alike(models, raw):
    sae = random_sae("batchtopk", tokens="all")
    given = {name: (model, sae) for name, model in models.items()}
    with pytest.raises(ValueError, match=r"on one picture, needs .*; those of a and b differ in size .*crop_size"):
        browse_features(given, raw, [BLUR], allow_other_model=True)


def test_features_of_images_prepared_for_another_model_are_refused(models, raw):
    images = prepare(raw, models["a"].image_processor)
    with pytest.raises(ValueError, match=r"were resized for another model: size .*shortest_edge"):
        sae_features(models["b"], random_sae("batchtopk", tokens="all"), images, [BLUR], allow_other_model=True)


def test_an_sae_remembers_the_pixels_that_it_was_trained_on(models, raw):
    """One trained on another preprocessing was evaluated without a word; one that does not say is let pass."""
    from mechvit.models.checkpoints.fingerprint import checkpoint_hash
    from mechvit.models.processors.preprocessing import all_settings
    from mechvit.saes.hook_site import check_checkpoint

    first, second = models.values()
    sae = random_sae("batchtopk", tokens="all")
    sae.cfg.metadata.checkpoint_hash = checkpoint_hash(first)
    for model in (first, second):
        check_checkpoint(model, {"sae": sae})
    sae.cfg.metadata.processor = json.loads(json.dumps(all_settings(first.image_processor)))
    check_checkpoint(first, {"sae": sae})
    with pytest.raises(ValueError, match=r"trained on other pixels than this model's .* size .*shortest_edge"):
        check_checkpoint(second, {"sae": sae})
    sae.cfg.metadata.checkpoint_hashes = [checkpoint_hash(first)] * 2
    sae.cfg.metadata.processors = [all_settings(model.image_processor) for model in models.values()]
    for model in (first, second):  # of a mix
        check_checkpoint(model, {"sae": sae})
