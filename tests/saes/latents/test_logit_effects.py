"""Decoder directions through the head, against the cache's own directions and real changes of the logits."""

from __future__ import annotations

import pytest
import torch
import transformers
from evaluation_saes import random_sae

from mechvit import HookedViT
from mechvit.saes.latents.logit_effects import class_directions, logit_effects

SHAPE = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def build(architecture, **changes):
    """A random model whose weights are far from their start, by its Hugging Face class."""
    config_class = getattr(transformers, architecture).config_class
    config = config_class(**{**SHAPE, "num_labels": 7, **changes})
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = getattr(transformers, architecture)(config).eval()
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return HookedViT.from_hf(model)


MODELS = {
    "cls": lambda: build("ViTForImageClassification"),
    "cls+distillation": lambda: build("DeiTForImageClassificationWithTeacher"),
    "mean": lambda: build("BeitForImageClassification", use_mean_pooling=True, use_relative_position_bias=True),
    "cls+mean": lambda: build("Dinov2ForImageClassification", mlp_ratio=2),
    "attention": lambda: siglip(),
}


def siglip():
    text = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 9,
    }
    config = transformers.SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=dict(SHAPE))
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = transformers.SiglipModel(config).eval()
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    text_embeds = torch.randn(7, 32, generator=generator)
    return HookedViT.from_hf(model, text_embeds=text_embeds, class_names=list("abcdefg"))


@pytest.mark.parametrize("pooling", MODELS)
def test_directions_are_the_cache_s_summed_over_tokens(pooling):
    model = MODELS[pooling]()
    assert model.cfg.pooling == pooling
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, cache = model.run_with_cache(pixels)
        found = class_directions(model)
        for label in range(7):
            wanted = cache.logit_directions(label).sum(-2)  # [image, d_model]
            if model.cfg.zero_shot:
                wanted = wanted * cache["head.hook_scale"]
            torch.testing.assert_close(found[label].expand_as(wanted), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "cls+distillation", "cls+mean"])
def test_effect_is_the_change_of_the_logits_at_a_fixed_scale(pooling):
    """The decoder direction added to every token that the head reads, the LayerNorm's scale held."""
    model = MODELS[pooling]()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    sae = random_sae()
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    with torch.no_grad():
        model.ln_final.w.mul_(torch.linspace(0.5, 2, 32))
        before, cache = model.run_with_cache(pixels, names_filter=["ln_final.hook_scale"])
        scale = torch.full_like(cache["ln_final.hook_scale"], 1.7)
        hold = ("ln_final.hook_scale", lambda s, hook: scale)
        before = model.run_with_hooks(pixels, fwd_hooks=[hold])
        found = logit_effects(model, sae.W_dec, top=7)
        for j in (9, 40, 77):
            direction = sae.W_dec[j]
            hooks = [hold, (last, lambda x, hook, direction=direction: x + direction)]
            change = (model.run_with_hooks(pixels, fwd_hooks=hooks) - before) * 1.7
            wanted = (change - change.mean(1, keepdim=True)).mean(0)
            effect = torch.zeros(7).scatter(0, found.raised[j], found.raised_by[j])
            torch.testing.assert_close(effect, wanted, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(found.lowered_by[j], wanted.sort().values, rtol=1e-3, atol=1e-4)
            assert found.lowered[j].tolist() == found.raised[j].flip(0).tolist()


def test_strongest_classes_come_first_and_many_latents_in_parts(monkeypatch):
    from mechvit.saes.latents import logit_effects as module

    model = MODELS["cls"]()
    W_dec = torch.randn(50, 32, generator=torch.Generator().manual_seed(2))
    whole = logit_effects(model, W_dec, top=3)
    assert (whole.raised_by.diff(dim=1) <= 0).all()
    assert (whole.lowered_by.diff(dim=1) >= 0).all()
    assert (whole.lowered_by[:, 0] < 0).all()
    monkeypatch.setattr(module, "_ROWS", 7)
    parts = module.logit_effects(model, W_dec, top=3)
    assert torch.equal(parts.raised, whole.raised)
    torch.testing.assert_close(parts.lowered_by, whole.lowered_by)


def test_a_planted_direction_raises_its_class():
    model = MODELS["cls"]()
    with torch.no_grad():
        W_dec = class_directions(model)
        W_dec = W_dec - W_dec.mean(1, keepdim=True) - (W_dec - W_dec.mean(1, keepdim=True)).mean(0)
        W_dec = torch.linalg.pinv(W_dec).T  # the effect on each class is its own but for what all share
    assert logit_effects(model, W_dec, top=1).raised[:, 0].tolist() == list(range(7))


def test_needs_a_head(tiny_hf):
    with pytest.raises(ValueError, match="no classification head"):
        logit_effects(HookedViT.from_hf(tiny_hf.vit), torch.ones(3, 32))
