"""Attention read from queries and keys is attention read from patterns, in every kind of model."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hf_zoo import ZOO

from mechvit import HookedViT
from mechvit.analysis import attention_entropy, attention_shift
from mechvit.analysis.attention import capture as attention_reading
from mechvit.analysis.condition_images import shown_to
from mechvit.analysis.inputs import pixel_values
from mechvit.data.batches import ImageBatch
from mechvit.kernels import attention_statistics as statistics

KINDS = {
    "vit classifier": "learned positions",
    "beit classifier, all positions": "a bias of each layer and a shared one",
    "data2vec classifier, relative bias": "a bias of each layer",
    "dinov3 encoder": "rotary positions and registers",
    "siglip zero-shot": "no class token",
}


def by_heads(monkeypatch):
    for name in ("MIXED_TOKENS", "SHIFT_PATTERN"):
        monkeypatch.setattr(attention_reading, name, 0)


@pytest.fixture(params=KINDS)
def model(request):
    entry = ZOO[request.param]
    return HookedViT.from_hf(entry(), **entry.zero_shot_head())


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return ImageBatch(torch.rand(7, 3, 32, 32, generator=generator), torch.zeros(7, dtype=torch.long), torch.arange(7))


@pytest.fixture
def both(monkeypatch):
    """Run a function as small models are read, and with queries and keys alone; count the fused attentions of the
    second."""

    def run(function):
        within = function()
        by_heads(monkeypatch)
        fused, genuine = [], torch.nn.functional.scaled_dot_product_attention
        monkeypatch.setattr(
            torch.nn.functional,
            "scaled_dot_product_attention",
            lambda *args, **options: fused.append(1) or genuine(*args, **options),
        )
        return within, function(), len(fused)

    return run


def test_entropy_is_the_same_either_way(model, images, both):
    within, by_heads, fused = both(lambda: attention_entropy(model, images, "gaussian_noise_4", batch_size=3))
    assert fused >= 3 * model.cfg.n_layers
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    pixels = pixel_values(model, shown_to(model, images, "gaussian_noise_4", seed=0))
    _, cache = model.run_with_cache(pixels, names_filter=names)
    wanted = torch.stack([torch.special.entr(cache[name].double()).sum(-1).mean((1, 2)) for name in names], dim=1)
    for found in (within, by_heads):
        torch.testing.assert_close(found.entropy.double(), wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 1e-3


def test_shift_is_the_same_either_way(model, images, both):
    by_pattern, by_heads, fused = both(lambda: attention_shift(model, images, "gaussian_noise_4", batch_size=3))
    assert fused >= 6 * model.cfg.n_layers
    for field in dataclasses.fields(by_pattern):
        found, expected = getattr(by_heads, field.name), getattr(by_pattern, field.name)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=field.name)
    assert (1 - by_pattern.cosine).max() > 1e-4


def test_a_callers_edit_of_the_pattern_is_seen(images, monkeypatch):
    by_heads(monkeypatch)
    model = HookedViT.from_hf(ZOO["vit classifier"]())
    uniform = [("blocks.1.attn.hook_pattern", lambda pattern, hook: torch.full_like(pattern, 1 / pattern.shape[-1]))]
    with model.hooks(fwd_hooks=uniform):
        entropy = attention_entropy(model, images).entropy
    torch.testing.assert_close(entropy[:, 1], torch.full((7,), 17.0).log())
    assert entropy[:, 0].max() < 2.8


def test_a_small_model_is_measured_while_it_attends(images, monkeypatch):
    """The pass gives the logits that it always gives, without fused attention, and is left as it was."""
    model = HookedViT.from_hf(ZOO["vit classifier"]())
    pixels = pixel_values(model, images)
    wanted = model(pixels)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)
    with attention_reading.entropy_reading(model) as (hooks, found):
        assert hooks == []
        logits = model.run_with_hooks(pixels, fwd_hooks=hooks)
        assert [entropy.shape for entropy in found] == [(7,)] * model.cfg.n_layers
    torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)
    assert all(block.attn.mix is None for block in model.blocks)
    assert attention_reading.is_small(model, model.cfg.n_tokens)
    assert not attention_reading.is_small(model, model.cfg.n_tokens - 1)


def test_a_pass_that_fails_leaves_the_model_as_it_was(images):
    model = HookedViT.from_hf(ZOO["vit classifier"]())
    with pytest.raises(ValueError, match="input size"):
        attention_entropy(model, dataclasses.replace(images, images=images.images[..., :24]))
    with pytest.raises(KeyError), attention_reading.entropy_reading(model):
        raise KeyError
    assert all(block.attn.mix is None for block in model.blocks)


@pytest.mark.parametrize("ways", ["within", "queries and keys"])
def test_no_pattern_is_ever_made(ways, images, monkeypatch):
    """Among 17 x 17 scores a head, blocks of 50 hold two rows."""
    if ways == "queries and keys":
        by_heads(monkeypatch)
    monkeypatch.setattr("mechvit.kernels.blocks.BLOCK", 50)
    sizes, genuine = [], statistics.scores_of

    def spy(*args):
        scores = genuine(*args)
        sizes.append(scores.numel())
        return scores

    monkeypatch.setattr(statistics, "scores_of", spy)
    attention_entropy(HookedViT.from_hf(ZOO["vit classifier"]()), images)
    assert max(sizes) <= 50
    assert sum(sizes) == 7 * 3 * 2 * 17 * 17
