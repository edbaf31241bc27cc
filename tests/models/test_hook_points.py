"""Hook points: their names, the fused path around them, and that each can be read, edited and differentiated."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.hook_points import HookPoint

from mechvit import HookedViT

BLOCK = [
    "ln1.hook_scale",
    "ln1.hook_normalized",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.hook_attn_scores",
    "attn.hook_pattern",
    "attn.hook_z",
    "ln2.hook_scale",
    "ln2.hook_normalized",
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_resid_pre",
    "hook_attn_out",
    "hook_resid_mid",
    "hook_mlp_out",
    "hook_resid_post",
]
ON_REQUEST = ["attn.hook_result", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in"]
ENDS = ["hook_embed", "hook_pos_embed", "ln_final.hook_scale", "ln_final.hook_normalized"]
NAMES = [
    *ENDS[:2],
    *(f"blocks.{layer}.{name}" for layer in range(3) for name in BLOCK),
    *ENDS[2:],
    "hook_head_input",
    "hook_logits",
]
EVERY = NAMES + [f"blocks.{layer}.{name}" for layer in range(3) for name in ON_REQUEST]


@pytest.fixture
def model(make_hf) -> HookedViT:
    return HookedViT.from_hf(make_hf())


@pytest.fixture
def full(model) -> HookedViT:
    """The model with its hook points on request too."""
    model.set_use_attn_result(True)
    model.set_use_split_qkv_input(True)
    model.set_use_hook_mlp_in(True)
    return model


@pytest.fixture
def fused_layers(monkeypatch, model, pixels):
    """Call it to run the model and learn which layers called torch's fused attention."""
    fused, current = [], []
    genuine = F.scaled_dot_product_attention

    def spy(*args, **kwargs):
        fused.append(current[-1])
        return genuine(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    for layer, block in enumerate(model.blocks):
        block.attn.register_forward_pre_hook(lambda module, args, layer=layer: current.append(layer))

    def run():
        fused.clear()
        model(pixels)
        return list(fused)

    return run


def test_names_are_exactly_these(model):
    assert list(model.hook_dict) == NAMES
    assert [point.name for point in model.hook_points()] == NAMES


def test_bare_encoder_has_no_head_points(make_hf):
    assert list(HookedViT.from_hf(make_hf("ViTModel")).hook_dict) == NAMES[:-2]


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
def test_names_match_transformer_lens(full):
    reference = HookedTransformer(
        HookedTransformerConfig(n_layers=3, d_model=8, n_ctx=4, d_head=4, n_heads=2, d_vocab=5, act_fn="gelu")
    )
    ours, theirs = set(full.hook_dict), set(reference.hook_dict)
    assert ours - theirs == {"hook_head_input", "hook_logits"}
    their_own = {"unembed.hook_in", "unembed.hook_out", *(f"blocks.{layer}.hook_attn_in" for layer in range(3))}
    assert theirs - ours == their_own


def test_requested_points_come_and_go_and_change_nothing(model, pixels):
    before = model(pixels)
    for switch, names in (
        (model.set_use_attn_result, ["attn.hook_result"]),
        (model.set_use_split_qkv_input, ["hook_q_input", "hook_k_input", "hook_v_input"]),
        (model.set_use_hook_mlp_in, ["hook_mlp_in"]),
    ):
        switch(True)
        switch(True)
        added = {f"blocks.{layer}.{name}" for layer in range(3) for name in names}
        assert set(model.hook_dict) - set(NAMES) == added
        logits, cache = model.run_with_cache(pixels, names_filter=sorted(added))
        torch.testing.assert_close(logits, before, rtol=0, atol=1e-5)
        assert set(cache) == added
        switch(False)
        assert list(model.hook_dict) == NAMES
        assert torch.equal(model(pixels), before)


@pytest.mark.parametrize("point", ["hook_pattern", "hook_attn_scores"])
@pytest.mark.parametrize("kind", ["forward", "backward", "permanent", "torch", "torch pre", "torch backward pre"])
def test_watching_one_layer_leaves_the_others_fused(model, fused_layers, point, kind):
    name = f"blocks.1.attn.{point}"
    target = model.hook_dict[name]
    assert fused_layers() == [0, 1, 2]

    def nothing(*args, **kwargs):
        return None

    attach = {
        "forward": lambda: model.add_hook(name, nothing),
        "backward": lambda: model.add_hook(name, nothing, "bwd"),
        "permanent": lambda: model.add_perma_hook(name, nothing),
        "torch": lambda: target.register_forward_hook(nothing),
        "torch pre": lambda: target.register_forward_pre_hook(nothing),
        "torch backward pre": lambda: target.register_full_backward_pre_hook(nothing),
    }
    handle = attach[kind]()
    assert fused_layers() == [0, 2]
    handle.remove() if handle else model.reset_hooks(including_permanent=True)
    assert fused_layers() == [0, 1, 2]


def test_replaced_point_counts_as_watched(model, fused_layers):
    class Spliced(HookPoint):
        pass

    plain = model.blocks[2].attn.hook_pattern
    model.blocks[2].attn.hook_pattern = Spliced()
    assert fused_layers() == [0, 1]
    model.blocks[2].attn.hook_pattern = plain
    assert fused_layers() == [0, 1, 2]


def test_other_hooks_leave_every_layer_fused(model, fused_layers):
    others = [name for name in NAMES if not name.endswith(("hook_pattern", "hook_attn_scores"))]
    with model.hooks([(name, lambda x, hook: x) for name in others]):
        assert fused_layers() == [0, 1, 2]


@pytest.mark.parametrize("name", EVERY)
def test_every_point_edits_the_logits_and_lets_go(full, pixels, name):
    """A copy keeps the logits, a new value and an edit in place change them alike, and removal restores them all."""

    def ramp(x):
        return torch.linspace(1.5, 2, x.shape[-1])  # one factor for all would pass LayerNorm unseen

    with torch.no_grad():
        before = full(pixels)
        explicit = full.run_with_hooks(pixels, fwd_hooks=[(name, lambda x, hook: x.clone())])
        edited = full.run_with_hooks(pixels, fwd_hooks=[(name, lambda x, hook: x * ramp(x))])
        weights = {n: tensor.clone() for n, tensor in full.state_dict().items()}
        in_place = full.run_with_hooks(pixels, fwd_hooks=[(name, lambda x, hook: x.mul_(ramp(x)))])
    torch.testing.assert_close(explicit, before, rtol=0, atol=1e-5)
    assert (edited - before).abs().max() > 1e-3
    assert torch.equal(in_place, edited)
    assert all(torch.equal(full.state_dict()[n], tensor) for n, tensor in weights.items())
    assert torch.equal(full(pixels), before)
    assert full.list_hooks() == {}


def test_zeroed_pattern_row_silences_the_head(model, pixels):
    """Editing a pattern acts as linear algebra says: z of the edited head is 0, all others keep theirs."""

    def silence(pattern, hook):
        pattern[:, 1] = 0
        return pattern

    _, before = model.run_with_cache(pixels, names_filter=["blocks.1.attn.hook_z"])
    with model.hooks([("blocks.1.attn.hook_pattern", silence)]):
        _, after = model.run_with_cache(pixels, names_filter=["blocks.1.attn.hook_z"])
    assert torch.equal(after["z", 1][:, :, 1], torch.zeros(4, 17, 16))
    torch.testing.assert_close(after["z", 1][:, :, 0], before["z", 1][:, :, 0], rtol=0, atol=1e-5)


def test_masked_scores_renormalise_the_pattern(model, pixels):
    def mask(scores, hook):
        return scores.index_fill(-1, torch.tensor([0]), -torch.inf)

    names = ["blocks.0.attn.hook_attn_scores", "blocks.0.attn.hook_pattern"]
    _, before = model.run_with_cache(pixels, names_filter=names)
    with model.hooks([(names[0], mask)]):
        _, after = model.run_with_cache(pixels, names_filter=names)
    assert after["pattern", 0][..., 0].abs().max() == 0
    expected = before["pattern", 0][..., 1:] / before["pattern", 0][..., 1:].sum(-1, keepdim=True)
    torch.testing.assert_close(after["pattern", 0][..., 1:], expected, rtol=0, atol=1e-6)


def test_gradient_reaches_every_point_and_matches_finite_differences(make_hf, pixels, labels):
    """Directional derivatives in float64, by central differences through the same hook point."""
    model, pixels = HookedViT.from_hf(make_hf().double()), pixels.double()
    for switch in (model.set_use_attn_result, model.set_use_split_qkv_input, model.set_use_hook_mlp_in):
        switch(True)
    _, cache = model.run_with_cache(pixels, "loss", labels=labels, incl_bwd=True)
    assert {name for name in cache if not name.endswith("_grad")} == set(EVERY)
    for name in EVERY:
        gradient = cache[f"{name}_grad"]
        if name.endswith(("ln1.hook_scale", "ln1.hook_normalized")):
            continue  # split inputs call ln1 three times, and the cache holds one of the calls
        assert gradient.shape == cache[name].shape
        step = 1e-5 * torch.randn(gradient.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        with torch.no_grad():
            up, down = (
                model.run_with_hooks(pixels, "loss", labels=labels, fwd_hooks=[(name, lambda x, hook, s=s: x + s)])
                for s in (step, -step)
            )
        slope = (gradient * step).sum()
        assert slope.abs() > 1e-12, name
        torch.testing.assert_close((up - down) / 2, slope, rtol=1e-5, atol=1e-14)


def test_backward_hook_changes_the_gradient(model, pixels, labels):
    """A gradient that is stopped after block 0 reaches block 1 and not the embedding."""

    def stop(gradient, hook):
        return torch.zeros_like(gradient)

    with model.hooks(bwd_hooks=[("blocks.0.hook_resid_post", stop)]):
        model(pixels, "loss", labels=labels).backward()
    assert model.embed.cls_token.grad.abs().max() == 0
    assert model.blocks[1].mlp.fc1.weight.grad.abs().max() > 0


@pytest.mark.parametrize("where", ["forward", "backward", "attaching"])
def test_exception_leaves_no_hook_behind(model, pixels, labels, where):
    def fail(tensor, hook):
        raise RuntimeError("from the hook")

    def keep(tensor, hook):
        return tensor * 2

    before = model(pixels)
    second = {"forward": ("blocks.1.attn.hook_z", fail), "attaching": ("blocks.1.attn.hook_zz", keep)}
    fwd = [("blocks.0.attn.hook_pattern", keep), *([second[where]] if where in second else [])]
    bwd = [("blocks.2.hook_mlp_out", fail)] if where == "backward" else []
    with pytest.raises((RuntimeError, ValueError), match=r"from the hook|hook_z'"), model.hooks(fwd, bwd):
        model(pixels, "loss", labels=labels).backward()
    assert model.list_hooks() == {}
    assert not any(point._forward_hooks or point._backward_hooks for point in model.hook_points())
    assert torch.equal(model(pixels), before)


def test_permanent_hook_outlives_others(model, pixels):
    before = model(pixels)
    model.add_perma_hook("hook_embed", lambda x, hook: x * 2)
    doubled = model(pixels)
    assert not torch.equal(doubled, before)
    model.run_with_hooks(pixels, fwd_hooks=[("hook_embed", lambda x, hook: x * 3)])
    model.run_with_cache(pixels)
    model.reset_hooks()
    assert torch.equal(model(pixels), doubled)
    model.reset_hooks(including_permanent=True)
    assert torch.equal(model(pixels), before)
