"""Attributions over all components and tokens, with `logit_bias`, are the logits of every kind of head."""

from __future__ import annotations

import re

import pytest
import torch
from family_runs import (
    BARE,
    BATCH,
    CLASSIFIERS,
    CLS_ONLY,
    DTYPES,
    LABELS,
    LAYERS,
    build,
    close,
    count_tokens,
    draw,
    resid,
    run,
)
from hf_zoo import CLASSES, ZOO
from torch.nn import functional as F
from zoo_options import daily, daily_but, exact

from mechvit.models.runs.activation_cache import ViTActivationCache

OTHERS = torch.tensor([1, 2, 0, 3])
every_classifier = pytest.mark.parametrize("name", exact(CLASSIFIERS))
daily_classifiers = pytest.mark.parametrize("name", daily(CLASSIFIERS))


def bias_of(name, model, cache):
    """Each class's logit without the residual stream's part: plain products of the checkpoint's own weights."""
    entry, hf = ZOO[name], dict(model.to_hf().state_dict())
    if entry.zero_shot:
        text = F.normalize(entry.text_embeds(torch.float64), dim=-1) * hf["logit_scale"].exp()
        constant = hf["vision_model.post_layernorm.bias"].expand(BATCH, -1)
        if entry.family == "clip":
            image = cache["ln_final.hook_normalized"][:, 0] @ hf["visual_projection.weight"].T
            constant = constant @ hf["visual_projection.weight"].T
        else:
            packed, offset = (hf[f"vision_model.head.attention.in_proj_{kind}"] for kind in ("weight", "bias"))
            value = constant @ packed[64:].T + offset[64:]
            out = {kind: hf[f"vision_model.head.attention.out_proj.{kind}"] for kind in ("weight", "bias")}
            mlp_out = cache["pooler.hook_mlp_out"][:, 0]
            image = cache["pooler.hook_attn_out"][:, 0] + mlp_out
            constant = value @ out["weight"].T + out["bias"] + mlp_out
        constant = constant / image.norm(dim=-1, keepdim=True)
        return constant @ text.T + hf.get("logit_bias", 0)
    if "Teacher" in entry.architecture:
        heads = [{k: hf[f"{token}_classifier.{k}"] for k in ("weight", "bias")} for token in ("cls", "distillation")]
        found = sum(hf["deit.layernorm.bias"] @ head["weight"].T + head["bias"] for head in heads) / 2
        return found.expand(BATCH, -1)
    weight, bias = hf["classifier.weight"], hf["classifier.bias"]
    if entry.family == "clip":
        return bias.expand(BATCH, -1)  # it has no final LayerNorm
    (norm,) = [key for key in hf if re.fullmatch(r"\w+\.(pooler\.)?(post_)?layernorm\.bias", key)]
    constant = torch.cat([hf[norm]] * (2 if "dinov2" in entry.family else 1))
    return (constant @ weight.T + bias).expand(BATCH, -1)


@every_classifier
def test_logit_bias_matches_products_of_the_weights(name):
    model, _, cache = run(name)
    expected = bias_of(name, model, cache)
    for index, label in enumerate(CLASSES):
        close(cache.logit_bias(index), expected[:, index])
        close(cache.logit_bias(label), expected[:, index])
    close(cache.logit_bias(LABELS), expected.gather(1, LABELS[:, None])[:, 0])


@pytest.mark.parametrize(("name", "dtype"), daily_but(torch.float64, [torch.float32], CLASSIFIERS))
def test_attributions_and_bias_are_the_logits(name, dtype):
    """Over all components and tokens, from each decomposition, for each way to name a class."""
    model, logits, cache = run(name, dtype)
    prefix, n_patches = count_tokens(model)
    picked, other = (logits.gather(1, which[:, None])[:, 0] for which in (LABELS, OTHERS))
    stacks = [cache.decompose_resid(), cache.get_full_resid_decomposition()]
    stacks.append(cache.get_full_resid_decomposition(expand_neurons=False))
    for parts in stacks:
        attrs = cache.logit_attrs(parts, LABELS)
        assert attrs.shape == (len(parts), BATCH, prefix + n_patches)
        close(attrs.sum((0, 2)) + cache.logit_bias(LABELS), picked, DTYPES[dtype])
        difference = cache.logit_attrs(parts, LABELS, OTHERS).sum((0, 2))
        close(difference, picked - other - cache.logit_bias(LABELS) + cache.logit_bias(OTHERS), DTYPES[dtype])
    for index, label in enumerate(CLASSES):
        attrs = cache.logit_attrs(stacks[0], index)
        assert torch.equal(attrs, cache.logit_attrs(stacks[0], label))
        assert torch.equal(attrs, cache.logit_attrs(stacks[0], torch.tensor(index)))
        close(attrs.sum((0, 2)) + cache.logit_bias(label), logits[:, index], DTYPES[dtype])
    each = torch.stack([cache.logit_attrs(stacks[0], index) for index in range(5)])
    close(cache.logit_attrs(stacks[0], LABELS), each[LABELS, :, torch.arange(BATCH)].transpose(0, 1), DTYPES[dtype])


def held_fixed(model):
    """Hooks that let no gradient through statistics, patterns and what a pooling head's MLP adds."""
    ends = ("ln_final.hook_scale", "head.hook_scale", "pooler.attn.hook_pattern", "pooler.hook_mlp_out")
    return [(name, lambda tensor, hook: tensor.detach()) for name in model.hook_dict if name.endswith(ends)]


@daily_classifiers
def test_attribution_of_a_token_is_its_gradient_with_statistics_held_fixed(name):
    """Share of a component = its product with the gradient of the logit by the last stream at that token."""
    model, _, cache = run(name)
    taken = []

    def keep(tensor, hook):
        taken.append(tensor.detach().requires_grad_())
        return taken[0]

    last = f"blocks.{LAYERS - 1}.hook_resid_post"
    logits = model.run_with_hooks(draw(), fwd_hooks=[(last, keep), *held_fixed(model)])
    logits.gather(1, LABELS[:, None]).sum().backward()
    model.zero_grad()
    parts = cache.decompose_resid()
    gradient = taken[0].grad
    assert gradient.abs().max() > 1e-3
    close(cache.logit_attrs(parts, LABELS), (parts * gradient).sum(-1))
    read = cache.logit_attrs(parts, LABELS)[:, :, model.head_tokens]
    close(read.sum(2), cache.logit_attrs(parts, LABELS).sum(2))


@pytest.mark.parametrize("name", CLS_ONLY)
def test_a_head_that_reads_cls_alone_needs_cls_alone(name):
    model, logits, cache = run(name)
    assert model.head_tokens == slice(0, 1)
    whole = cache.logit_attrs(cache.decompose_resid(), LABELS)
    assert torch.equal(whole[:, :, 1:], torch.zeros_like(whole[:, :, 1:]))
    parts = cache.decompose_resid(pos_slice=0)
    attrs = cache.logit_attrs(parts, LABELS, pos_slice=0)
    assert attrs.shape == (len(parts), BATCH)
    close(attrs, whole[:, :, 0])
    close(attrs.sum(0) + cache.logit_bias(LABELS), logits.gather(1, LABELS[:, None])[:, 0])
    direction = torch.stack([model.tokens_to_residual_directions(index) for index in range(5)])
    scale = cache["head.hook_scale"] if "head.hook_scale" in cache else torch.ones(BATCH, 1)
    close(cache.logit_directions(LABELS)[:, 0], direction[LABELS] / scale)


@daily_classifiers
@pytest.mark.parametrize("batch_slice", [2, -1, (1, 3), [3, 0]], ids=str)
def test_attributions_of_some_images(name, batch_slice):
    """A stack of all images and `batch_slice`, a cut stack, and the cache of those images agree."""
    _, _, cache = run(name)
    parts = cache.decompose_resid()
    chosen = slice(*batch_slice) if isinstance(batch_slice, tuple) else batch_slice
    for tokens in (LABELS, 2, "dog"):
        expected = cache.logit_attrs(parts, tokens)[:, chosen]
        assert expected.abs().max() > 1e-2
        close(cache.logit_attrs(parts, tokens, batch_slice=batch_slice), expected)
        close(cache.logit_attrs(parts[:, chosen], tokens, batch_slice=batch_slice, has_batch_dim=False), expected)
        some = cache.apply_slice_to_batch_dim(batch_slice)
        assert some.has_batch_dim == (not isinstance(batch_slice, int))
        theirs = tokens[chosen] if isinstance(tokens, torch.Tensor) else tokens
        close(some.logit_attrs(some.decompose_resid(), theirs, has_batch_dim=some.has_batch_dim), expected)
        close(some.logit_bias(theirs), cache.logit_bias(tokens)[chosen])


@daily_classifiers
def test_attributions_of_one_image_without_batch_dimension(name):
    model, _, _ = run(name)
    pixels = draw(batch=1)
    logits, cache = model.run_with_cache(pixels, remove_batch_dim=True)
    _, later = model.run_with_cache(pixels)
    for found in (cache, later.remove_batch_dim()):
        for parts in (found.decompose_resid(), found.get_full_resid_decomposition()):
            close(parts.sum(0), found["resid_post", -1])
            attrs = found.logit_attrs(parts, 2, has_batch_dim=False)
            assert attrs.shape == parts.shape[:2]
            close(attrs.sum() + found.logit_bias(2), logits[0, 2])
            difference = found.logit_attrs(parts, torch.tensor([2]), "ant", has_batch_dim=False).sum()
            close(difference + found.logit_bias(2) - found.logit_bias("ant"), logits[0, 2] - logits[0, 0])


@daily_classifiers
@pytest.mark.parametrize("kept", [0, 5, -1, (0, 1), (2, 7), [0], [6, 0, 1], (0, 5)], ids=str)
def test_a_cache_of_some_tokens_gives_them_their_shares(name, kept):
    """Also where the head pools tokens that the cache lacks."""
    model, _, cache = run(name)
    _, cut = model.run_with_cache(draw(), pos_slice=kept)
    chosen = slice(*kept) if isinstance(kept, tuple) else kept
    parts = cut.decompose_resid()
    assert torch.equal(parts, cache.decompose_resid()[:, :, chosen])
    for tokens in (LABELS, 2):
        expected = cache.logit_attrs(cache.decompose_resid(), tokens)[:, :, chosen]
        close(cut.logit_attrs(parts, tokens), expected)
        close(cut.logit_bias(tokens), cache.logit_bias(tokens))
        some = cut.apply_slice_to_batch_dim([1, 3])
        theirs = tokens if isinstance(tokens, int) else tokens[[1, 3]]
        close(some.logit_attrs(some.decompose_resid(), theirs), expected[:, [1, 3]])
    if isinstance(kept, int):
        with pytest.raises(ValueError, match=rf"holds token {kept} alone"):
            cut.logit_attrs(parts, LABELS, pos_slice=0)
        stacks = ("decompose_resid", "accumulated_resid", "stack_head_results", "stack_neuron_results")
        for stack in (*stacks, "get_full_resid_decomposition"):  # they would cut the images instead
            with pytest.raises(ValueError, match=rf"holds token {kept} alone"):
                getattr(cut, stack)(-1, pos_slice=0)
    else:
        first = cut.logit_attrs(cut.decompose_resid(pos_slice=0), LABELS, pos_slice=0)
        close(first, cut.logit_attrs(parts, LABELS)[:, :, 0])


@daily_classifiers
@pytest.mark.parametrize("size", [(24, 40), (48, 48)], ids=str)
def test_attributions_at_another_image_size(name, size):
    model, _, _ = run(name)
    prefix, n_patches = count_tokens(model, size)
    logits, cache = model.run_with_cache(draw(size), interpolate_pos_encoding=True)
    attrs = cache.logit_attrs(cache.decompose_resid(), LABELS)
    assert attrs.shape[2] == prefix + n_patches
    close(attrs.sum((0, 2)) + cache.logit_bias(LABELS), logits.gather(1, LABELS[:, None])[:, 0])
    _, cut = model.run_with_cache(draw(size), interpolate_pos_encoding=True, pos_slice=(3, 6))
    close(cut.logit_attrs(cut.decompose_resid(), LABELS), attrs[:, :, 3:6])


@daily_classifiers
def test_a_cache_of_another_dtype_is_attributed_to_its_precision(name):
    model, logits, _ = run(name, torch.float32)
    _, half = model.run_with_cache(draw(dtype=torch.float32), dtype=torch.bfloat16)
    _, wide = model.run_with_cache(draw(dtype=torch.float32), dtype=torch.float64)
    picked = logits.gather(1, LABELS[:, None])[:, 0]
    for cache, tolerance in ((half, 0.05), (wide, 1e-4)):
        attrs = cache.logit_attrs(cache.decompose_resid(), LABELS)
        close(attrs.sum((0, 2)) + cache.logit_bias(LABELS), picked, tolerance)


@pytest.mark.parametrize("name", ["siglip zero-shot", "siglip2 zero-shot"])
def test_attributions_follow_an_edited_pooling_pattern(name):
    """A head's pattern set to zero, whose rows then sum to 0 and no longer to 1."""
    model = build(name)

    def silence(pattern, hook):
        pattern[:, 1] = 0
        return pattern

    with model.hooks(fwd_hooks=[("pooler.attn.hook_pattern", silence)]):
        logits, cache = model.run_with_cache(draw())
    assert (logits - run(name)[1]).abs().max() > 1e-2
    attrs = cache.logit_attrs(cache.decompose_resid(), LABELS)
    close(attrs.sum((0, 2)) + cache.logit_bias(LABELS), logits.gather(1, LABELS[:, None])[:, 0])


@pytest.mark.parametrize("name", BARE)
def test_a_bare_encoder_has_no_logits_to_attribute(name):
    model, _, cache = run(name)
    calls = [
        lambda: cache.logit_attrs(cache.decompose_resid(), 0),
        lambda: cache.logit_bias(0),
        lambda: model.unembed_residual(resid(cache, LAYERS)),
        lambda: model.W_U,
        lambda: model.b_U,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="has no classification head"):
            call()


def test_bad_classes_and_cuts_are_named():
    _, _, cache = run("siglip classifier")
    parts = cache.decompose_resid()
    for tokens in (LABELS[:3], LABELS[:, None].expand(4, 2)):
        with pytest.raises(ValueError, match=r"one for each image \(4,\); got"):
            cache.logit_attrs(parts, tokens)
    with pytest.raises(ValueError, match="got 'fox'"):
        cache.logit_attrs(parts, "fox")
    with pytest.raises(ValueError, match="needs n_tokens"):
        ViTActivationCache(cache.cache_dict, cache.model, pos_slice=0)


@daily_classifiers
def test_a_cache_wrapped_by_hand_is_the_same(name):
    model, _, cache = run(name)
    _, plain = model.run_with_cache(draw(), return_cache_object=False)
    wrapped = ViTActivationCache(plain, model)
    parts = cache.decompose_resid()
    assert torch.equal(wrapped.logit_attrs(parts, LABELS), cache.logit_attrs(parts, LABELS))
