"""Every hook point of every family can be read, edited and differentiated, and lets go, in float64."""

from __future__ import annotations

import copy
import functools
from collections import defaultdict

import pytest
import torch
from hf_zoo import ZOO
from recomputed import _relative_bias, recompute
from torch.nn import functional as F
from zoo_options import DAILY, daily

from mechvit import HookedViT

every = pytest.mark.parametrize("name", daily())
LABELS = torch.tensor([3, 0])
# What costs most is checked at every point of the daily entries, and at some points of the others.
each = pytest.mark.parametrize("name", DAILY)


@functools.cache
def draw() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@functools.cache
def _built(name: str):
    hf_model = ZOO[name](torch.float64)
    return hf_model, HookedViT.from_hf(hf_model, **ZOO[name].zero_shot_head(torch.float64))


def build(name: str, on_request: bool = True):
    """Return the Hugging Face model, only to be read, and a new HookedViT of it, with all points on request or none."""
    hf_model, model = _built(name)
    model = copy.deepcopy(model)
    for switch in (model.set_use_attn_result, model.set_use_split_qkv_input, model.set_use_hook_mlp_in):
        switch(on_request)
    return hf_model, model


def in_one_block(points):
    """Leave out the points of all blocks but the second."""
    return [point for point in points if not point.startswith(("blocks.0.", "blocks.2."))]


def ramp(x):
    """One factor for each place of the last dimension: the same for all would pass a LayerNorm or a softmax unseen."""
    return torch.linspace(0.7, 1.3, x.shape[-1], dtype=torch.float64)


def scaled(x, hook):
    return x * ramp(x)


def scaled_in_place(x, hook):
    return x.mul_(ramp(x))


def same(x, hook):
    return x


def record(model, edit):
    """Run with an edit at every point at once; give the output, and what arrived at and left each call of each."""
    arrived, left = defaultdict(list), defaultdict(list)

    def hook(x, hook):
        arrived[hook.name].append(x.clone())
        new = edit(x, hook)
        left[hook.name].append(new.clone())
        return new

    with torch.no_grad():
        output = model.run_with_hooks(draw(), fwd_hooks=[(lambda name: True, hook)])
    return output, dict(arrived), dict(left)


def objective(model, output):
    """The loss of a classifier; else the output's product with a fixed random direction."""
    if model.head is not None:
        return F.cross_entropy(output, LABELS)
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return (output * direction).sum() / output.numel() ** 0.5


def gradients(model):
    """Return the gradient of the objective at each call of each hook point, the last call first."""
    found = defaultdict(list)

    def save(gradient, hook):
        found[hook.name].append(gradient)

    with model.hooks(bwd_hooks=[(lambda name: True, save)]):
        objective(model, model(draw())).backward()
    return dict(found)


def assert_untouched(model, before):
    """No hook is left, and the output is the very same."""
    assert model.list_hooks() == {}
    for point in model.hook_points():
        kinds = (point._forward_hooks, point._forward_pre_hooks, point._backward_hooks, point._backward_pre_hooks)
        assert not any(kinds), point.name
    with torch.no_grad():
        assert torch.equal(model(draw()), before)


@every
@pytest.mark.parametrize("on_request", [False, True], ids=["plain", "on request"])
def test_each_point_holds_what_is_computed_from_the_others(name, on_request):
    """Without an edit, and with one at all points at once: what reads a point reads what left it, and nothing else."""
    hf_model, model = build(name, on_request)
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        before = model(draw())
        for edit in (same, scaled):
            output, arrived, left = record(model, edit)
            expected, result = recompute(model, hf_model, draw(), left)
            assert set(arrived) == set(expected) == set(model.hook_dict)
            for point, calls in expected.items():
                for found, wanted in zip(arrived[point], calls, strict=True):
                    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10, msg=lambda m, p=point: f"{p}: {m}")
            torch.testing.assert_close(output, result, rtol=1e-9, atol=1e-10)
            if edit is same:
                torch.testing.assert_close(output, before, rtol=1e-10, atol=1e-10)
                cache = model.run_with_cache(draw())[1]
                assert set(cache) == set(arrived)
                assert all(torch.equal(cache[point], calls[-1]) for point, calls in arrived.items())
        in_place = record(model, scaled_in_place)
    assert torch.equal(in_place[0], output)
    for point, calls in left.items():
        assert all(map(torch.equal, in_place[2][point], calls)), point
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
    assert_untouched(model, before)


@pytest.mark.long
@every
def test_each_point_edits_the_output_and_lets_go(name):
    _, model = build(name)
    with torch.inference_mode():
        before = model(draw())
        for point in model.hook_dict:
            edited = model.run_with_hooks(draw(), fwd_hooks=[(point, scaled)])
            assert (edited - before).abs().max() > 1e-6, point
            if name in DAILY:
                in_place = model.run_with_hooks(draw(), fwd_hooks=[(point, scaled_in_place)])
                assert torch.equal(in_place, edited), point
            assert torch.equal(model(draw()), before), point
    assert_untouched(model, before)


@pytest.mark.long
@every
def test_a_gradient_reaches_each_point(name):
    """No gradient is zero; of the kinds of edit that change nothing, each has a gradient of zero."""
    _, model = build(name)
    with torch.no_grad():  # with gradients, a bias on the scores has torch choose another fused attention
        before = model(draw())
    found = gradients(model)
    assert set(found) == set(model.hook_dict)
    assert all(gradient.abs().max() > 1e-9 for calls in found.values() for gradient in calls)
    for point, (gradient, *_) in found.items():
        if point.endswith("hook_attn_scores"):  # the softmax does not see a constant added to a row
            assert gradient.sum(-1).abs().max() < 1e-10 * gradient.abs().max(), point
        rotary = model.cfg.positions == "rotary"
        if point.endswith("hook_rot_k" if rotary else "attn.hook_k"):  # one vector added to all keys is such a constant
            assert gradient.sum(1).abs().max() < 1e-10 * gradient.abs().max(), point
    if model.head is not None:
        _, cache = model.run_with_cache(draw(), "loss", labels=LABELS, incl_bwd=True)
        assert set(cache) == {point + end for point in model.hook_dict for end in ("", "_grad")}
        assert all(torch.equal(cache[f"{point}_grad"], calls[-1]) for point, calls in found.items())
    points = in_one_block(model.hook_dict)
    for point in points if name in DAILY else points[:: len(name)]:
        check_slope(model, point, found[point])
    assert_untouched(model, before)


def check_slope(model, point, calls):
    """Compare a gradient with central differences along one random direction, the same at all calls of a point."""
    direction = torch.randn(calls[0].shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    slope = sum((gradient * direction).sum() for gradient in calls)
    step = 1e-5 * direction
    with torch.no_grad():
        up, down = (
            objective(model, model.run_with_hooks(draw(), fwd_hooks=[(point, lambda x, hook, s=s: x + s)]))
            for s in (step, -step)
        )
    assert slope.abs() > 1e-7, point
    torch.testing.assert_close((up - down) / 2e-5, slope, rtol=1e-5, atol=1e-9, msg=lambda m: f"{point}: {m}")


@every
def test_pos_slice_cuts_tokens_and_leaves_what_is_pooled(name):
    _, model = build(name)
    pooled = ("pooler.", "head.", "hook_head_input", "hook_logits", "ln_final.")
    pooled = pooled if model.cfg.final_norm == "pooled" else pooled[:-1]
    with torch.no_grad():
        whole = model.run_with_cache(draw(), return_cache_object=False)[1]
        for pos_slice in (0, -1, (2, 9, 3), [0, 5, 11]):
            index = slice(*pos_slice) if isinstance(pos_slice, tuple) else pos_slice
            cut = model.run_with_cache(draw(), pos_slice=pos_slice, return_cache_object=False)[1]
            assert set(cut) == set(whole) == set(model.hook_dict)
            for point, tensor in whole.items():
                if point.startswith(pooled):
                    expected = tensor
                elif point.endswith(("hook_attn_scores", "hook_pattern")):
                    expected = tensor[:, :, index]
                else:
                    assert tensor.shape[:2] == (2, model.cfg.n_tokens)
                    expected = tensor[:, index]
                assert torch.equal(cut[point], expected), (point, pos_slice)


@each
def test_reset_removes_every_kind_of_hook(name):
    _, model = build(name)
    with torch.no_grad():
        before = model(draw())
        for point in model.hook_dict:
            model.add_hook(point, scaled)
            model.add_hook(point, lambda gradient, hook: 2 * gradient, "bwd")
            model.add_perma_hook(point, scaled)
        edited_twice = model(draw())
        model.reset_hooks()
        edited_once = model(draw())
        assert set(model.list_hooks()) == set(model.hook_dict)
        assert not any(point.bwd_hooks or point._backward_hooks for point in model.hook_points())
        assert torch.equal(edited_once, record(build(name)[1], scaled)[0])
        assert (edited_once - edited_twice).abs().max() > 1e-6
        assert (edited_once - before).abs().max() > 1e-6
        model.reset_hooks(including_permanent=True)
    assert_untouched(model, before)


@pytest.fixture
def fused(monkeypatch):
    """Record (query, mask) of every call of torch's fused attention."""
    calls, genuine = [], F.scaled_dot_product_attention

    def spy(query, key, value, attn_mask=None):
        calls.append((query, attn_mask))
        return genuine(query, key, value, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return calls


@pytest.mark.parametrize("point", ["hook_attn_scores", "hook_pattern"])
@pytest.mark.parametrize(
    "name", ["dinov3 encoder, key bias, gated", "beit classifier, all positions", "siglip zero-shot"]
)
def test_watching_a_layer_leaves_the_others_fused(name, point, fused):
    """Rotated queries and position biases reach the fused attention; any layer, and the pooling, switch alone."""
    _, model = build(name, on_request=False)
    places = [name for name in model.hook_dict if name.endswith(point)]
    assert len(places) == 3 + (name == "siglip zero-shot")
    with torch.no_grad():
        model(draw())
        whole = list(fused)
        assert len(whole) == len(places)
        queries = "attn.hook_rot_q" if "dinov3" in name else "attn.hook_q"
        cache = model.run_with_cache(draw(), names_filter=lambda p: p.endswith(queries), return_cache_object=False)[1]
        for (query, mask), (place, expected) in zip(whole, cache.items(), strict=True):
            assert torch.equal(query, expected.transpose(1, 2)), place
            assert (mask is not None) == ("beit" in name)
        for layer, block in enumerate(model.blocks if "beit" in name else []):
            bias = _relative_bias(block.attn.relative.table, 4) + _relative_bias(model.relative.table, 4)
            torch.testing.assert_close(whole[layer][1][0], bias)
        for i, place in enumerate(places):
            for direction in ("fwd", "bwd"):
                model.add_hook(place, lambda x, hook: None, direction)
                fused.clear()
                model(draw())
                assert len(fused) == len(places) - 1
                others = [query for j, (query, _) in enumerate(whole) if j != i]
                for (query, _), expected in zip(fused, others, strict=True):
                    torch.testing.assert_close(query, expected)
                model.reset_hooks()
        fused.clear()
        model(draw())
        assert all(torch.equal(query, expected) for (query, _), (expected, _) in zip(fused, whole, strict=True))


@pytest.mark.long
@each
def test_an_exception_in_a_hook_leaves_nothing_behind(name, fused):
    _, model = build(name)
    with torch.no_grad():
        before = model(draw())
    n_fused = len(fused)

    def fail(x, hook):
        raise RuntimeError(f"from {hook.name}")

    model.add_perma_hook("hook_embed", same)  # what was there before stays
    for point in in_one_block(model.hook_dict):
        for hooks in ({"fwd_hooks": [(point, fail)]}, {"bwd_hooks": [(point, fail)]}):
            with pytest.raises(RuntimeError, match=f"from {point}$"), model.hooks(**hooks):
                objective(model, model(draw())).backward()
            assert list(model.list_hooks()) == ["hook_embed"]
    model.reset_hooks(including_permanent=True)
    fused.clear()
    assert_untouched(model, before)
    assert len(fused) == n_fused
