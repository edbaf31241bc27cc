"""Every decomposition of a residual stream sums to what it decomposes, in every family."""

from __future__ import annotations

import pytest
import torch
from family_runs import DTYPES, HEADS, LAYERS, close, draw, resid, run
from torch.nn import functional as F
from zoo_options import daily

every = pytest.mark.parametrize("name", daily())


@every
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_components_sum_to_every_stream(name, dtype):
    model, _, cache = run(name, dtype)
    embeds = ["embed", "pos_embed"] if "hook_pos_embed" in model.hook_dict else ["embed"]
    sums = []
    for layer in range(LAYERS + 1):
        parts, names = cache.decompose_resid(layer, return_labels=True)
        assert names == [*embeds, *(f"{i}_{kind}_out" for i in range(layer) for kind in ("attn", "mlp"))]
        sums.append((parts.sum(0), resid(cache, layer)))
        if layer < LAYERS:
            sums.append((cache.decompose_resid(layer, mlp_input=True).sum(0), cache["resid_mid", layer]))
        for mode in ("attn", "mlp"):
            chosen = cache.decompose_resid(layer, mode=mode, incl_embeds=False) if layer else parts[:0]
            assert torch.equal(chosen, parts[[mode in name for name in names]])
    for found, expected in sums:
        close(found, expected, DTYPES[dtype])


@every
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_heads_and_neurons_sum_to_every_stream(name, dtype):
    """Head results + neuron results (or MLPs) + embeddings + the biases left over."""
    model, _, cache = run(name, dtype)
    embeds = cache["hook_embed"] + cache.cache_dict.get("hook_pos_embed", 0)
    for layer in range(1, LAYERS + 1):
        heads, head_names = cache.stack_head_results(layer, return_labels=True)
        assert head_names == model.all_head_labels()[: HEADS * layer]
        mlps = sum(cache["mlp_out", i] for i in range(layer))
        bias = model.accumulated_bias(layer, include_mlp_biases=False)
        close(heads.sum(0) + mlps + embeds + bias, resid(cache, layer), DTYPES[dtype])
        neurons, neuron_names = cache.stack_neuron_results(layer, return_labels=True)
        d_mlp = cache["post", 0].shape[-1]
        assert neuron_names == [f"L{i}N{n}" for i in range(layer) for n in range(d_mlp)]
        close(neurons.sum(0) + sum(block.mlp.b_out for block in model.blocks[:layer]), mlps, DTYPES[dtype])
        close(
            heads.sum(0) + neurons.sum(0) + embeds + model.accumulated_bias(layer), resid(cache, layer), DTYPES[dtype]
        )
        rest = cache.stack_head_results(layer, incl_remainder=True)
        close(rest.sum(0), resid(cache, layer), DTYPES[dtype])


@every
@pytest.mark.parametrize("expand_neurons", [True, False])
def test_full_decomposition_sums_to_the_stream(name, expand_neurons):
    cache = run(name)[2]
    towards = torch.randn(32, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    options = {"expand_neurons": expand_neurons, "return_labels": True}
    for layer, mlp_input in [(0, False), (0, True), (1, False), (2, True), (LAYERS, False)]:
        parts, names = cache.get_full_resid_decomposition(layer, mlp_input, **options)
        wanted = cache["resid_mid", layer] if mlp_input else resid(cache, layer)
        assert len(parts) == len(names)
        assert names[-1] == "bias"
        close(parts.sum(0), wanted)
        projected, _ = cache.get_full_resid_decomposition(layer, mlp_input, project_output_onto=towards, **options)
        close(projected, parts @ towards)


@every
def test_normalised_decomposition_sums_to_what_the_layer_reads(name):
    """Less the LayerNorm's gain and bias, which transformer-lens leaves out."""
    model, _, cache = run(name)
    for layer, mlp_input in [(0, False), (1, True), (2, False)]:
        ln = model.blocks[layer].ln2 if mlp_input else model.blocks[layer].ln1
        expected = cache["normalized", layer, "ln2" if mlp_input else "ln1"]
        for parts in (
            cache.decompose_resid(layer, mlp_input, apply_ln=True),
            cache.get_full_resid_decomposition(layer, mlp_input, apply_ln=True),
        ):
            close(parts.sum(0) * ln.w + ln.b, expected)
    if model.cfg.final_norm == "tokens":
        parts = cache.decompose_resid(apply_ln=True)
        close(parts.sum(0) * model.ln_final.w + model.ln_final.b, cache["ln_final.hook_normalized"])


@every
def test_accumulated_resid_is_every_layers_stream(name):
    model, _, cache = run(name)
    streams, names = cache.accumulated_resid(return_labels=True)
    assert names == ["0_pre", "1_pre", "2_pre", "final_post"]
    assert torch.equal(streams, torch.stack([resid(cache, layer) for layer in range(LAYERS + 1)]))
    with_mid, names = cache.accumulated_resid(incl_mid=True, return_labels=True)
    assert names == ["0_pre", "0_mid", "1_pre", "1_mid", "2_pre", "2_mid", "final_post"]
    assert torch.equal(with_mid[1::2], torch.stack([cache["resid_mid", layer] for layer in range(LAYERS)]))
    if model.cfg.final_norm == "pooled":
        with pytest.raises(ValueError, match=r"normalises the mean of its patches.*unembed_residual"):
            cache.accumulated_resid(apply_ln=True)
        return
    expected = streams
    if model.ln_final is not None:
        expected = F.layer_norm(streams, (32,), model.ln_final.w, model.ln_final.b, model.cfg.eps)
    close(cache.accumulated_resid(apply_ln=True), expected)
    close(cache.accumulated_resid(apply_ln=True, pos_slice=0), expected[:, :, 0])


@every
def test_head_results_match_the_requested_hook_points(name):
    model, _, cache = run(name)
    computed = cache.stack_head_results()
    model.set_use_attn_result(True)
    try:
        _, cache = model.run_with_cache(draw())
    finally:
        model.set_use_attn_result(False)
    asked = torch.cat([cache["result", layer].movedim(2, 0) for layer in range(LAYERS)])
    close(computed, asked)
    close(cache.stack_head_results(), asked)


def test_stacks_keep_the_dtype_of_the_cache():
    """Also for no layers; the results of a half-precision cache have the weights' dtype."""
    model = run("beit classifier, all positions", torch.float32)[0]
    for dtype, wide in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        _, cache = model.run_with_cache(draw(dtype=torch.float32), dtype=dtype)
        assert cache.stack_head_results(2).dtype == wide
        assert cache.stack_head_results(0).dtype == dtype
        assert cache.stack_head_results(0).shape == (0, 4, 17, 32)
        close(cache.get_full_resid_decomposition(2).sum(0).float(), cache["resid_pre", 2].float(), 0.05)
