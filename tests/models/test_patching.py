"""transformer_lens.patching on a HookedViT: every function, against loops over plain hooks and Hugging Face."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest
import torch
from transformer_lens import patching

from mechvit import HookedViT

LAYERS, HEADS, TOKENS = 2, 2, 5
EVERY = slice(None)
BY_POS = (TOKENS,), lambda pos: (EVERY, pos)
BY_POS_AND_HEAD = (TOKENS, HEADS), lambda pos, head: (EVERY, pos, head)
BY_HEAD = (HEADS,), lambda head: (EVERY, EVERY, head)
SINGLE = {
    "resid_pre": ("hook_resid_pre", *BY_POS),
    "resid_mid": ("hook_resid_mid", *BY_POS),
    "attn_out": ("hook_attn_out", *BY_POS),
    "mlp_out": ("hook_mlp_out", *BY_POS),
    "attn_head_out_by_pos": ("attn.hook_z", *BY_POS_AND_HEAD),
    "attn_head_q_by_pos": ("attn.hook_q", *BY_POS_AND_HEAD),
    "attn_head_k_by_pos": ("attn.hook_k", *BY_POS_AND_HEAD),
    "attn_head_v_by_pos": ("attn.hook_v", *BY_POS_AND_HEAD),
    "attn_head_pattern_by_pos": ("attn.hook_pattern", (HEADS, TOKENS), lambda head, query: (EVERY, head, query)),
    "attn_head_pattern_dest_src_pos": (
        "attn.hook_pattern",
        (HEADS, TOKENS, TOKENS),
        lambda head, query, key: (EVERY, head, query, key),
    ),
    "attn_head_out_all_pos": ("attn.hook_z", *BY_HEAD),
    "attn_head_q_all_pos": ("attn.hook_q", *BY_HEAD),
    "attn_head_k_all_pos": ("attn.hook_k", *BY_HEAD),
    "attn_head_v_all_pos": ("attn.hook_v", *BY_HEAD),
    "attn_head_pattern_all_pos": ("attn.hook_pattern", (HEADS,), lambda head: (EVERY, head)),
}
"""The hook point that a function patches, the sizes of its result after the layer, and what an index selects there."""

STACKS = {
    "block_every": ["resid_pre", "attn_out", "mlp_out"],
    "attn_head_all_pos_every": [f"attn_head_{what}_all_pos" for what in ("out", "q", "k", "v", "pattern")],
    "attn_head_by_pos_every": [f"attn_head_{what}_by_pos" for what in ("out", "q", "k", "v", "pattern")],
}
"""The functions that stack the results of others."""


def metric(logits):
    """The mean margin of class 3 over class 0."""
    return (logits[:, 3] - logits[:, 0]).mean()


@pytest.fixture(scope="module")
def hf_model(make_hf):
    return make_hf(image_size=16, num_hidden_layers=LAYERS).double()


@pytest.fixture(scope="module")
def model(hf_model):
    return HookedViT.from_hf(hf_model)


@pytest.fixture(scope="module")
def clean():
    return torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def corrupted():
    return torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def cache(model, clean):
    with torch.no_grad():
        return model.run_with_cache(model.to_tokens(clean))[1]


@pytest.fixture(params=["in place", "with gradients"])
def grad_mode(request):
    """Without gradients transformer-lens writes into the activations themselves, else into copies."""
    with torch.set_grad_enabled(request.param == "with gradients"):
        yield


def patch(name, model, pixels, cache):
    return getattr(patching, f"get_act_patch_{name}")(model, model.to_tokens(pixels), cache, metric)


def loop(name, model, pixels, cache):
    """The metric for each index, from one run each with a hook that copies the clean entries in."""
    point, sizes, select = SINGLE[name]
    result = torch.zeros(LAYERS, *sizes, dtype=torch.float64)
    for layer, *index in itertools.product(range(LAYERS), *map(range, sizes)):
        where, target = select(*index), f"blocks.{layer}.{point}"

        def copy_in(x, hook, where=where, target=target):
            out = x.clone()
            out[where] = cache[target][where]
            return out

        result[(layer, *index)] = metric(model.run_with_hooks(pixels, fwd_hooks=[(target, copy_in)])).detach()
    return result


def test_these_are_all_the_functions():
    names = {name.removeprefix("get_act_patch_") for name in dir(patching) if name.startswith("get_act_patch_")}
    assert names == {*SINGLE, *STACKS}


@pytest.mark.parametrize("name", SINGLE)
def test_each_function_matches_a_loop(model, corrupted, cache, name, grad_mode):
    result = patch(name, model, corrupted, cache)
    expected = loop(name, model, corrupted, cache)
    assert result.shape == expected.shape == (LAYERS, *SINGLE[name][1])
    assert (expected - metric(model(corrupted))).abs().max() > 1e-3
    assert expected.std() > 1e-4
    torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-6)  # the result is float32


@pytest.mark.parametrize("name", STACKS)
def test_stacks_match_their_parts(model, corrupted, cache, name, grad_mode):
    result = patch(name, model, corrupted, cache)
    parts = [loop(part, model, corrupted, cache) for part in STACKS[name]]
    if name == "attn_head_by_pos_every":
        parts[-1] = parts[-1].transpose(1, 2)  # [layer, head, query] -> [layer, token, head], as the others
    torch.testing.assert_close(result.double(), torch.stack(parts), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_residual_patches_match_hugging_face(hf_model, model, clean, corrupted, cache, layer):
    """The same patch made in the Hugging Face model by torch's own hooks."""
    module, held = hf_model.vit.layers[layer], {}

    def keep(module, args):
        held["clean"] = args[0]

    def copy_in(module, args):
        out = args[0].clone()
        out[:, held["pos"]] = held["clean"][:, held["pos"]]
        return (out, *args[1:])

    def run(pixels, hook):
        handle = module.register_forward_pre_hook(hook)
        try:
            return metric(hf_model(pixels).logits)
        finally:
            handle.remove()

    with torch.no_grad():
        run(clean, keep)
        result = patch("resid_pre", model, corrupted, cache)[layer]
        for held["pos"] in range(TOKENS):
            expected = run(corrupted, copy_in)
            torch.testing.assert_close(result[held["pos"]].double(), expected, rtol=1e-6, atol=1e-6)


def test_corners(model, clean, corrupted, cache):
    """All of resid_pre gives the clean logits; CLS after the last block too; patching with itself changes nothing."""
    tokens, index = model.to_tokens(corrupted), pd.DataFrame({"layer": range(LAYERS)})
    with torch.no_grad():
        logits = {"clean": metric(model(clean)), "corrupted": metric(model(corrupted))}
        assert (logits["clean"] - logits["corrupted"]).abs() > 0.1
        results = {
            name: patching.generic_activation_patch(
                model, tokens, source, metric, lambda x, index, clean: clean, "resid_pre", index_df=index
            )
            for name, source in (("clean", cache), ("corrupted", model.run_with_cache(tokens)[1]))
        }
        last = patching.generic_activation_patch(
            model,
            tokens,
            cache,
            metric,
            patching.layer_pos_patch_setter,
            "resid_post",
            index_df=pd.DataFrame({"layer": [LAYERS - 1] * TOKENS, "pos": range(TOKENS)}),
        )
    for name, result in results.items():
        torch.testing.assert_close(result.double(), logits[name].repeat(LAYERS), rtol=1e-6, atol=1e-6)
    expected = torch.stack([logits["clean"]] + [logits["corrupted"]] * (TOKENS - 1))
    torch.testing.assert_close(last.double(), expected, rtol=1e-6, atol=1e-6)


def test_the_index_can_be_returned(model, corrupted, cache):
    result, index = patching.get_act_patch_attn_out(
        model, model.to_tokens(corrupted), cache, metric, return_index_df=True
    )
    assert result.shape == (LAYERS, TOKENS)
    assert list(index.columns) == ["layer", "pos"]
    assert index.to_numpy().tolist() == [[layer, pos] for layer in range(LAYERS) for pos in range(TOKENS)]


def test_image_tokens_run_as_their_pixels(model, clean):
    tokens = model.to_tokens(clean)
    assert tokens.shape == torch.Size([2, TOKENS])
    assert tokens.pixels is clean
    with torch.no_grad():
        expected, pixel_cache = model.run_with_cache(clean)
        logits, cache = model.run_with_cache(tokens)
        assert torch.equal(logits, expected)
        assert set(cache) == set(pixel_cache)
        assert all(torch.equal(cache[name], pixel_cache[name]) for name in cache)
        assert torch.equal(model(tokens), model(clean))
        doubled = [("hook_embed", lambda x, hook: 2 * x)]
        edited = model.run_with_hooks(tokens, fwd_hooks=doubled)
        assert torch.equal(edited, model.run_with_hooks(clean, fwd_hooks=doubled))
        assert not torch.equal(edited, model(clean))


def test_image_tokens_are_frozen_and_checked(model, clean):
    tokens = model.to_tokens(clean)
    with pytest.raises(AttributeError):
        tokens.n_tokens = 3
    with pytest.raises(
        ValueError, match=r"pixels must be a tensor \[batch, channel, height, width\]; got \[3, 16, 16\]"
    ):
        model.to_tokens(clean[0])
    with pytest.raises(ValueError, match="got str"):
        model.to_tokens("a cat")
    with pytest.raises(ValueError, match="pixel_values must be"):
        model(model.to_tokens(torch.zeros(1, 1, 16, 16)))
