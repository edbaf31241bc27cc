"""transformer-lens's ActivationCache works on a HookedViT: its decompositions sum to what they decompose."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechvit import HookedViT


@pytest.fixture(scope="module", params=["plain", "folded"])
def model(request, make_hf) -> HookedViT:
    from mechvit.models.parameters.processing import fold_layer_norms

    model = HookedViT.from_hf(make_hf().double())
    return model if request.param == "plain" else fold_layer_norms(model)


@pytest.fixture(scope="module")
def run(model, pixels):
    return model.run_with_cache(pixels.double())


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def resid(cache, layer):
    return cache["resid_post", layer - 1] if layer else cache["resid_pre", 0]


@pytest.mark.parametrize("layer", range(4))
def test_decompose_resid_sums_to_the_stream(run, layer):
    _, cache = run
    parts, names = cache.decompose_resid(layer, return_labels=True)
    assert names == ["embed", "pos_embed", *(f"{i}_{kind}_out" for i in range(layer) for kind in ("attn", "mlp"))]
    close(parts.sum(0), resid(cache, layer))
    if layer < 3:
        close(cache.decompose_resid(layer, mlp_input=True).sum(0), cache["resid_mid", layer])


@pytest.mark.parametrize("layer", range(4))
def test_heads_and_biases_sum_to_the_stream(run, model, layer):
    _, cache = run
    heads, names = cache.stack_head_results(layer, return_labels=True)
    assert names == [f"L{i}H{h}" for i in range(layer) for h in range(2)]
    mlps = sum((cache["mlp_out", i] for i in range(layer)), torch.zeros((), dtype=torch.float64))
    embeds = cache["hook_embed"] + cache["hook_pos_embed"]
    bias = model.accumulated_bias(layer, include_mlp_biases=False)
    close(heads.sum(0) + mlps + embeds + bias, resid(cache, layer))


@pytest.mark.parametrize("expand_neurons", [True, False])
@pytest.mark.parametrize(("layer", "mlp_input"), [(1, False), (1, True), (2, True), (3, False)])
def test_full_decomposition_sums_to_the_stream(run, layer, mlp_input, expand_neurons):
    _, cache = run
    parts = cache.get_full_resid_decomposition(layer, mlp_input=mlp_input, expand_neurons=expand_neurons)
    heads = 2 * (layer + mlp_input)
    assert len(parts) == heads + layer * (64 if expand_neurons else 1) + 3
    close(parts.sum(0), cache["resid_mid", layer] if mlp_input else resid(cache, layer))


def test_head_results_match_the_requested_hook_points(make_hf, pixels):
    model = HookedViT.from_hf(make_hf().double())
    _, cache = model.run_with_cache(pixels.double())
    computed = cache.stack_head_results(3)
    model.set_use_attn_result(True)
    _, cache = model.run_with_cache(pixels.double())
    for layer in range(3):
        for head in range(2):
            close(cache["result", layer][:, :, head], computed[2 * layer + head])
        close(cache["result", layer].sum(2) + model.blocks[layer].attn.b_O, cache["attn_out", layer])


def test_accumulated_resid_is_every_layers_stream(run, model):
    logits, cache = run
    streams, names = cache.accumulated_resid(return_labels=True)
    assert names == ["0_pre", "1_pre", "2_pre", "final_post"]
    for layer, stream in enumerate(streams):
        assert torch.equal(stream, resid(cache, layer))
    normalised = cache.accumulated_resid(apply_ln=True)
    lens = F.linear(normalised[:, :, 0], model.head.weight, model.head.bias)
    close(lens[-1], logits)
    for layer, stream in enumerate(streams):
        close(lens[layer], model.unembed_residual(stream[:, model.head_tokens]))
        close(F.linear(stream[:, 0], model.W_U.T, model.b_U), model.unembed_residual(stream[:, :1], apply_ln=False))


def test_logit_attributions_sum_to_the_logits(run, model, labels):
    """Over all components, plus what ln_final's bias and the head's bias add."""
    logits, cache = run
    parts = cache.decompose_resid(pos_slice=0)
    constant = model.ln_final.b @ model.W_U + model.b_U
    attrs = cache.logit_attrs(parts, labels, pos_slice=0)
    assert attrs.shape == (8, 4)
    picked = logits.gather(1, labels[:, None])[:, 0]
    close(attrs.sum(0), picked - constant[labels])
    one = cache.logit_attrs(parts, "dog", pos_slice=0)
    close(one.sum(0), logits[:, 3] - constant[3])
    close(one, cache.logit_attrs(parts, 3, pos_slice=0))
    other = (labels + 1) % 5
    difference = cache.logit_attrs(parts, labels, incorrect_tokens=other, pos_slice=0).sum(0)
    close(difference, picked - logits.gather(1, other[:, None])[:, 0] - (constant[labels] - constant[other]))


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
@pytest.mark.parametrize("include_mlp_biases", [True, False])
@pytest.mark.parametrize("mlp_input", [True, False])
def test_accumulated_bias_matches_transformer_lens(model, mlp_input, include_mlp_biases):
    reference = HookedTransformer(
        HookedTransformerConfig(n_layers=3, d_model=32, n_ctx=4, d_head=16, n_heads=2, d_vocab=5, act_fn="gelu")
    ).double()
    with torch.no_grad():
        for theirs, ours in zip(reference.blocks, model.blocks, strict=True):
            theirs.attn.b_O.copy_(ours.attn.b_O)
            theirs.mlp.b_out.copy_(ours.mlp.b_out)
    for layer in range(3 if mlp_input else 4):
        options = {"mlp_input": mlp_input, "include_mlp_biases": include_mlp_biases}
        expected = reference.accumulated_bias(layer, **options).double()  # transformer-lens sums in float32
        torch.testing.assert_close(model.accumulated_bias(layer, **options), expected, rtol=0, atol=1e-6)


def test_weight_views_compute_the_activations(run, model):
    """W_Q, W_K, W_V, W_O, W_in, W_out in transformer-lens's layout, by plain einsum."""
    _, cache = run
    for layer, block in enumerate(model.blocks):
        attn, mlp, x = block.attn, block.mlp, cache["normalized", layer, "ln1"]
        for name, weight, bias in (("q", attn.W_Q, attn.b_Q), ("k", attn.W_K, attn.b_K), ("v", attn.W_V, attn.b_V)):
            close(torch.einsum("btm,hmd->bthd", x, weight) + bias, cache[name, layer])
        close(torch.einsum("bthd,hdm->btm", cache["z", layer], attn.W_O) + attn.b_O, cache["attn_out", layer])
        close(cache["normalized", layer, "ln2"] @ mlp.W_in + mlp.b_in, cache["pre", layer])
        close(cache["post", layer] @ mlp.W_out + mlp.b_out, cache["mlp_out", layer])
        scores = torch.einsum("bqhd,bkhd->bhqk", cache["q", layer], cache["k", layer]) / 4
        close(scores, cache["attn_scores", layer])
        close(scores.softmax(-1), cache["pattern", layer])


def test_weight_views_without_biases(make_hf):
    attn = HookedViT.from_hf(make_hf(qkv_bias=False)).blocks[0].attn
    for bias in (attn.b_Q, attn.b_K, attn.b_V):
        assert torch.equal(bias, torch.zeros(2, 16))


def test_remove_batch_dim_keeps_the_sums(model, pixels):
    _, cache = model.run_with_cache(pixels[:1].double(), remove_batch_dim=True)
    close(cache.decompose_resid().sum(0), cache["resid_post", -1])
    parts = cache.decompose_resid(pos_slice=0)
    attrs = cache.logit_attrs(parts, 2, pos_slice=0, has_batch_dim=False)
    expected = cache["hook_logits"][2] - (model.ln_final.b @ model.W_U + model.b_U)[2]
    close(attrs.sum(0), expected)
