"""Running with a cache or hooks: what is kept, in which form, and where the run stops."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformer_lens import ActivationCache

from mechvit import HookedViT

RESID = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]


@pytest.fixture
def model(make_hf) -> HookedViT:
    return HookedViT.from_hf(make_hf())


@pytest.fixture
def whole(model, pixels) -> ActivationCache:
    return model.run_with_cache(pixels)[1]


@pytest.mark.parametrize(
    ("names_filter", "expected"),
    [
        (RESID[1], RESID[1:2]),
        ([RESID[2], "hook_embed"], ["hook_embed", RESID[2]]),
        ((RESID[0],), RESID[:1]),
        ({RESID[0]}, RESID[:1]),
        ((name for name in RESID), RESID),
        (lambda name: name.endswith("resid_post"), RESID),
        ([], []),
    ],
    ids=["str", "list", "tuple", "set", "generator", "callable", "nothing"],
)
def test_names_filter_keeps_exactly_these(model, pixels, whole, names_filter, expected):
    logits, cache = model.run_with_cache(pixels, names_filter=names_filter)
    assert list(cache) == expected
    for name in expected:
        torch.testing.assert_close(cache[name], whole[name], rtol=0, atol=1e-5)
    assert torch.equal(logits, model(pixels)), "residual streams are watched without changing the path"


def test_no_filter_keeps_every_point(model, whole):
    assert set(whole) == set(model.hook_dict)
    assert isinstance(whole, ActivationCache)


def test_plain_dict_on_request(model, pixels):
    _, cache = model.run_with_cache(pixels, names_filter=RESID, return_cache_object=False)
    assert type(cache) is dict
    assert list(cache) == RESID


@pytest.mark.parametrize("stop", range(-3, 4))
def test_stop_at_layer_returns_the_stream_and_runs_nothing_after(model, pixels, stop):
    ran = []
    for layer, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda module, args, layer=layer: ran.append(layer))
    model.ln_final.register_forward_pre_hook(lambda module, args: ran.append("ln_final"))
    _, cache = model.run_with_cache(pixels, names_filter=lambda name: "hook_resid" in name)
    assert ran == [0, 1, 2, "ln_final"]
    streams = [cache["resid_pre", 0], *(cache["resid_post", layer] for layer in range(3))]
    last = range(3)[stop] if stop < 3 else 3
    for run in (
        lambda: model(pixels, stop_at_layer=stop),
        lambda: model.run_with_hooks(pixels, stop_at_layer=stop),
        lambda: model.run_with_cache(pixels, stop_at_layer=stop, names_filter="hook_embed")[0],
        lambda: model(pixels, "loss", stop_at_layer=stop),
    ):
        ran.clear()
        assert torch.equal(run(), streams[last])
        assert ran == list(range(last))


@pytest.mark.parametrize("start", range(-3, 4))
def test_start_at_layer_goes_on_to_the_same_bits(model, pixels, labels, start):
    first = range(3)[start] if start < 3 else 3
    entered = model(pixels, stop_at_layer=first)
    ran = []
    model.embed.register_forward_pre_hook(lambda module, args: ran.append("embed"))
    for layer, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda module, args, layer=layer: ran.append(layer))
    wanted, loss = model(pixels, "both", labels=labels)
    assert ran == ["embed", 0, 1, 2]
    for run in (
        lambda: model(entered, start_at_layer=start),
        lambda: model.run_with_hooks(entered, start_at_layer=start),
        lambda: model.run_with_cache(entered, start_at_layer=start, names_filter="hook_logits")[0],
    ):
        ran.clear()
        assert torch.equal(run(), wanted)
        assert ran == list(range(first, 3))
    assert torch.equal(model(entered, "loss", labels=labels, start_at_layer=start), loss)
    for stop in range(first, 4):
        ran.clear()
        assert torch.equal(model(entered, start_at_layer=start, stop_at_layer=stop), model(pixels, stop_at_layer=stop))
        assert ran[: stop - first] == list(range(first, stop))
    assert model(entered, None, start_at_layer=start) is None


def test_start_keeps_only_what_ran(model, pixels, whole):
    entered = model(pixels, stop_at_layer=1)
    _, cache = model.run_with_cache(entered, start_at_layer=1)
    assert set(cache) == {name for name in whole if not name.startswith(("blocks.0.", "hook_embed", "hook_pos"))}
    for name, tensor in cache.items():
        torch.testing.assert_close(tensor, whole[name], rtol=0, atol=1e-5)
    gradients = []
    hooks = [("blocks.1.hook_resid_pre", lambda x, hook: 2 * x)]
    doubled = model.run_with_hooks(entered, start_at_layer=1, fwd_hooks=hooks)
    assert torch.equal(doubled, model(2 * entered, start_at_layer=1))
    entered.requires_grad_().register_hook(gradients.append)
    model(entered, start_at_layer=1)[:, 0].sum().backward()
    assert gradients[0].abs().min(0).values.max() > 0


def test_start_after_another_size(make_hf, pixels):
    model = HookedViT.from_hf(make_hf()).set_image_size(48)
    larger = torch.nn.functional.interpolate(pixels, size=(48, 48))
    assert torch.equal(model(model(larger, stop_at_layer=2), start_at_layer=2), model(larger))


def test_stop_keeps_only_what_ran(model, pixels):
    _, cache = model.run_with_cache(pixels, stop_at_layer=1)
    first = [name for name in model.hook_dict if name.startswith(("blocks.0.", "hook_embed", "hook_pos"))]
    assert set(cache) == set(first)


@pytest.mark.parametrize("pos_slice", [0, -1, (1, None), (None, 5), (2, 16, 3), [0, 4, 9]], ids=str)
def test_pos_slice_cuts_the_token_dimension(model, pixels, whole, pos_slice):
    _, cache = model.run_with_cache(pixels, pos_slice=pos_slice)
    index = pos_slice if isinstance(pos_slice, int | list) else slice(*pos_slice)
    assert set(cache) == set(whole)
    for name, tensor in whole.items():
        if name in ("hook_head_input", "hook_logits"):
            expected = tensor
        elif name.endswith(("hook_pattern", "hook_attn_scores")):
            expected = tensor[:, :, index]
        else:
            expected = tensor[:, index]
        assert torch.equal(cache[name], expected), name
        if tensor is not expected:
            assert cache[name].untyped_storage().nbytes() == expected.numel() * 4, "no token that was cut off is kept"


def test_device_and_dtype_are_the_caches_alone(model, pixels, whole):
    _, cache = model.run_with_cache(pixels, device="meta", dtype=torch.float16)
    assert set(cache) == set(whole)
    for name, tensor in whole.items():
        assert (cache[name].device.type, cache[name].dtype, cache[name].shape) == ("meta", torch.float16, tensor.shape)
    logits, cache = model.run_with_cache(pixels, names_filter=RESID, dtype=torch.bfloat16)
    assert logits.dtype == torch.float32
    for name in RESID:
        torch.testing.assert_close(cache[name], whole[name].bfloat16(), rtol=0.02, atol=1e-2)


def test_remove_batch_dim(model, pixels):
    _, cache = model.run_with_cache(pixels[:1])
    _, bare = model.run_with_cache(pixels[:1], remove_batch_dim=True)
    assert not bare.has_batch_dim
    for name, tensor in cache.items():
        assert torch.equal(bare[name], tensor[0])


def test_backward_cache_matches_autograd(model, pixels, labels):
    loss, cache = model.run_with_cache(pixels, "loss", labels=labels, incl_bwd=True)
    logits = model(pixels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels), rtol=0, atol=1e-5)
    expected = (logits.softmax(-1) - F.one_hot(labels, 5)) / len(labels)
    torch.testing.assert_close(cache["hook_logits_grad"], expected, rtol=0, atol=1e-6)
    expected = cache["hook_logits_grad"] @ model.head.weight
    torch.testing.assert_close(cache["hook_head_input_grad"], expected, rtol=0, atol=1e-6)
    assert set(cache) == {name + end for name in model.hook_dict for end in ("", "_grad")}
    cls_grad = cache["hook_embed_grad"][:, 0].sum(0)
    torch.testing.assert_close(model.embed.cls_token.grad[0, 0], cls_grad, rtol=0, atol=1e-6)
    _, cut = model.run_with_cache(
        pixels, "loss", labels=labels, incl_bwd=True, pos_slice=0, names_filter=RESID[0], dtype=torch.float64
    )
    assert list(cut) == [RESID[0], f"{RESID[0]}_grad"]
    torch.testing.assert_close(cut[f"{RESID[0]}_grad"], cache[f"{RESID[0]}_grad"][:, 0].double(), rtol=0, atol=1e-6)


def test_return_types(model, pixels, labels):
    logits = model(pixels)
    both = model(pixels, "both", labels=labels)
    expected = F.cross_entropy(logits, labels)
    assert torch.equal(both[0], logits)
    assert torch.equal(both[1], expected)
    assert torch.equal(model(pixels, "loss", labels=labels), expected)
    assert model(pixels, None) is None
    assert torch.equal(model(pixels, prepend_bos=False), logits)


def test_cached_tensors_hold_no_graph(whole):
    assert not any(tensor.requires_grad for tensor in whole.values())


def test_run_with_hooks_equals_hooks_context(model, pixels):
    pairs = [(lambda name: name.endswith("hook_mlp_out"), lambda x, hook: x * (hook.layer() + 2))]
    ran = model.run_with_hooks(pixels, fwd_hooks=pairs)
    with model.hooks(pairs):
        assert torch.equal(model(pixels), ran)
    assert (ran - model(pixels)).abs().max() > 1e-2


def test_nested_hooks_are_removed_level_by_level(model, pixels):
    before = model(pixels)
    with model.hooks([("hook_embed", lambda x, hook: x * 2)]):
        outer = model(pixels)
        with model.hooks([(RESID[1], lambda x, hook: x.flip(-1))]):
            assert not torch.equal(model(pixels), outer)
        assert torch.equal(model.run_with_cache(pixels, names_filter=RESID)[0], outer)
        assert torch.equal(model(pixels), outer)
    assert torch.equal(model(pixels), before)


def test_hooks_kept_on_request_until_reset(model, pixels):
    before = model(pixels)
    first = model.run_with_hooks(pixels, fwd_hooks=[("hook_embed", lambda x, hook: x * 2)], reset_hooks_end=False)
    assert torch.equal(model(pixels), first)
    model.reset_hooks()
    assert torch.equal(model(pixels), before)


def test_caching_hooks_stay_until_reset(model, pixels, labels):
    cache = model.add_caching_hooks(RESID, incl_bwd=True)
    model(pixels, "loss", labels=labels).backward()
    assert list(cache)[:3] == RESID
    assert set(cache) == {*RESID, *(f"{name}_grad" for name in RESID)}
    kept = cache[RESID[0]]
    model(pixels.flip(0))
    assert torch.equal(cache[RESID[0]], kept.flip(0))
    model.reset_hooks()
    assert model.list_hooks() == {}
