"""HookedViT computes what Hugging Face computes: logits, hidden states, patterns, losses and gradients."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from mechvit import HookedViT

SHAPES = {
    "default": {},
    "no qkv bias": {"qkv_bias": False},
    "eight heads": {"num_attention_heads": 8},
    "wide heads": {"head_dim": 24},
    "relu": {"hidden_act": "relu"},
    "large eps": {"layer_norm_eps": 0.1},
    "uneven patches": {"image_size": 37, "patch_size": 7},
    "grey": {"num_channels": 1},
    "one layer": {"num_hidden_layers": 1},
}


def close(found, expected, atol):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def draw(hf_config, batch=3, dtype=torch.float32):
    shape = (batch, hf_config.num_channels, hf_config.image_size, hf_config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


def residuals(cache, n_layers):
    return [cache["resid_pre", 0], *(cache["resid_post", layer] for layer in range(n_layers))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_and_hidden_states_match_hugging_face(make_hf, run_hf, shape, dtype):
    hf_model = make_hf(**shape).to(dtype)
    model, pixels = HookedViT.from_hf(hf_model), draw(hf_model.config, dtype=dtype)
    theirs, atol = run_hf(hf_model, pixels), 1e-5 if dtype == torch.float32 else 1e-10
    assert theirs.logits.std() > 0.5
    close(model(pixels), theirs.logits, atol)
    logits, fused = model.run_with_cache(pixels, names_filter=lambda name: "hook_resid" in name)
    close(logits, theirs.logits, atol)
    explicit_logits, explicit = model.run_with_cache(pixels)  # explicit softmax and LayerNorm everywhere
    close(explicit_logits, theirs.logits, atol)
    for cache in (fused, explicit):
        ours = residuals(cache, model.cfg.n_layers)
        assert len(ours) == len(theirs.hidden_states)
        for found, expected in zip(ours, theirs.hidden_states, strict=True):
            close(found, expected, atol)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_patterns_match_hugging_face_eager(make_hf, run_hf, shape):
    hf_model = make_hf(**shape)
    model, pixels = HookedViT.from_hf(hf_model), draw(hf_model.config)
    theirs = run_hf(hf_model, pixels, "eager")
    _, cache = model.run_with_cache(pixels, names_filter=lambda name: name.endswith("hook_pattern"))
    assert len(theirs.attentions) == model.cfg.n_layers
    for layer, expected in enumerate(theirs.attentions):
        assert expected.std() > 0.01, "the patterns are not uniform"
        close(cache["pattern", layer], expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("pooler", [True, False])
def test_bare_encoder_matches_hugging_face(make_hf, run_hf, pixels, pooler, dtype):
    hf_model = make_hf("ViTModel", pooler=pooler, pooler_output_size=20).to(dtype)
    model = HookedViT.from_hf(hf_model)
    theirs, atol = run_hf(hf_model, pixels.to(dtype)), 1e-5 if dtype == torch.float32 else 1e-10
    final, cache = model.run_with_cache(pixels.to(dtype))
    close(model(pixels), theirs.last_hidden_state, 1e-5)
    close(final, theirs.last_hidden_state, atol)
    for found, expected in zip(residuals(cache, 3), theirs.hidden_states, strict=True):
        close(found, expected, atol)
    if pooler:
        assert theirs.pooler_output.shape == (4, 20)
        close(model.pooler(final), theirs.pooler_output, atol)
    else:
        assert model.pooler is None
        assert theirs.pooler_output is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("watched", [False, True], ids=["fused", "explicit"])
def test_half_precision_errs_no_more_than_hugging_face(make_hf, run_hf, pixels, dtype, watched):
    """Against float64, at most twice the error of Hugging Face in the same dtype."""
    hf_half = make_hf().to(dtype)
    exact = run_hf(copy.deepcopy(hf_half).double(), pixels.double())
    theirs = run_hf(hf_half, pixels.to(dtype), "eager" if watched else "sdpa")
    names = None if watched else (lambda name: "hook_resid" in name)
    logits, cache = HookedViT.from_hf(hf_half).run_with_cache(pixels, names_filter=names)
    pairs = [(logits, theirs.logits, exact.logits)]
    pairs += list(zip(residuals(cache, 3), theirs.hidden_states, exact.hidden_states, strict=True))
    for found, same_dtype, truth in pairs:
        assert found.dtype == dtype
        error, allowed = (found.double() - truth).abs().max(), (same_dtype.double() - truth).abs().max()
        assert error <= 2 * allowed
        assert error < 0.05 * truth.abs().max()
    if watched:
        assert cache["pattern", 1].dtype == dtype
        step = torch.finfo(dtype).eps
        close(cache["pattern", 0].double(), theirs.attentions[0].double(), 8 * step)


def test_loss_and_every_gradient_match_hugging_face(make_hf, pixels, labels):
    hf_model = make_hf().double()
    model = HookedViT.from_hf(hf_model)
    ours, theirs = (pixels.double().clone().requires_grad_() for _ in range(2))
    loss = model(ours, "loss", labels=labels)
    expected = hf_model(theirs, labels=labels).loss
    close(loss, expected, 1e-12)
    loss.backward()
    expected.backward()
    close(ours.grad, theirs.grad, 1e-10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    gradients = model.to_hf().state_dict()
    for name, parameter in hf_model.named_parameters():
        vanishes = name.endswith("k_proj.bias")  # it shifts every score of a row alike
        assert (parameter.grad.abs().max() < 1e-12) == vanishes, name
        close(gradients[name], parameter.grad, 1e-10)


@pytest.mark.long
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    heads=st.integers(1, 4),
    d_head=st.integers(1, 9),
    layers=st.integers(1, 3),
    patch=st.integers(1, 6),
    per_side=st.integers(1, 4),
    spare=st.integers(0, 5),
    channels=st.integers(1, 4),
    batch=st.integers(1, 3),
    bias=st.booleans(),
    classes=st.integers(1, 7),
)
def test_any_shape_matches_hugging_face_and_returns(
    make_hf, run_hf, heads, d_head, layers, patch, per_side, spare, channels, batch, bias, classes
):
    names = {i: f"class {i}" for i in range(classes)}
    hf_model = make_hf(
        image_size=patch * per_side + spare % patch,
        patch_size=patch,
        hidden_size=heads * d_head,
        intermediate_size=2 * d_head + 1,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_channels=channels,
        qkv_bias=bias,
        id2label=names,
        label2id={name: i for i, name in names.items()},
    ).double()
    model, pixels = HookedViT.from_hf(hf_model), draw(hf_model.config, batch, torch.float64)
    theirs = run_hf(hf_model, pixels)
    logits, cache = model.run_with_cache(pixels)
    close(model(pixels), theirs.logits, 1e-10)
    close(logits, theirs.logits, 1e-10)
    for found, expected in zip(residuals(cache, layers), theirs.hidden_states, strict=True):
        close(found, expected, 1e-10)
    assert model.cfg.n_tokens == 1 + per_side**2 == cache["resid_pre", 0].shape[1]
    back = model.to_hf().state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in hf_model.state_dict().items())


@pytest.mark.slow
def test_vit_base_matches_hugging_face(run_hf):
    torch.manual_seed(0)
    hf_model = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)).eval()
    with torch.no_grad():
        for parameter in hf_model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model, pixels = HookedViT.from_hf(hf_model), draw(hf_model.config, batch=2)
    assert (model.cfg.n_tokens, model.cfg.d_model, model.cfg.n_layers, model.cfg.n_classes) == (197, 768, 12, 1000)
    theirs = run_hf(hf_model, pixels, "eager")
    close(model(pixels), theirs.logits, 1e-5)
    _, cache = model.run_with_cache(pixels, names_filter=lambda name: "resid" in name or "pattern" in name)
    for found, expected in zip(residuals(cache, 12), theirs.hidden_states, strict=True):
        close(found, expected, 1e-5)
    for layer, expected in enumerate(theirs.attentions):
        close(cache["pattern", layer], expected, 1e-6)
