"""Parts divide all weights of every family, and other weights stand in for them only while a context lasts."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from family_runs import build
from hypothesis import given, settings
from hypothesis import strategies as st
from shifted_models import shifted
from zoo_options import daily

from mechvit.analysis.interventions.model_pair import check_weights_fit, comparable_weights
from mechvit.analysis.weights.model_parts import (
    groups_named,
    model_parts,
    part_groups,
    weights_of,
    weights_replaced,
)

UNITS = ("parts", "branches", "blocks")


@pytest.mark.parametrize("name", daily())
def test_every_weight_of_every_family_is_in_one_part(name):
    model = build(name, torch.float32)
    parts = model_parts(model)
    listed = [tensor for tensors in parts.values() for tensor in tensors]
    assert sorted(listed) == sorted(model.own_state_dict())
    own = {n for n, _ in model.named_parameters()}
    assert set(listed) == own  # no buffer among them, and no parameter left out
    assert next(iter(parts)) == "embed"
    for unit in UNITS:
        grouped = [part for group in part_groups(model, unit).values() for part in group]
        assert grouped == list(parts)


def test_parts_hold_what_belongs_to_them():
    beit = model_parts(build("beit classifier, relative bias", torch.float32))
    assert {"blocks.1.attn.scale", "blocks.1.attn.relative.table"} <= set(beit["blocks.1.attn"])
    assert "blocks.1.mlp.scale" in beit["blocks.1.mlp"]
    assert "relative.table" in model_parts(build("beit classifier, shared bias", torch.float32))["embed"]
    clip = model_parts(build("clip zero-shot", torch.float32))
    assert {"ln_pre.w", "embed.positions", "embed.cls_token"} <= set(clip["embed"])
    siglip = model_parts(build("siglip zero-shot", torch.float32))
    assert any(name.startswith("pooler.") for name in siglip["head"])


def test_groups_join_parts_in_order(tiny_model):
    assert list(part_groups(tiny_model, "blocks")) == ["embed", "blocks.0", "blocks.1", "blocks.2", "ln_final", "head"]
    assert part_groups(tiny_model, "branches")["blocks.1.ln2+mlp"] == ("blocks.1.ln2", "blocks.1.mlp")
    named = groups_named(tiny_model, ["blocks.2", "blocks.0.attn", "blocks.0.ln1+attn"])
    assert named["blocks.2"] == ("blocks.2.ln1", "blocks.2.attn", "blocks.2.ln2", "blocks.2.mlp")
    assert named["blocks.0.attn"] == ("blocks.0.attn",)
    assert named["blocks.0.ln1+attn"] == ("blocks.0.ln1", "blocks.0.attn")
    with pytest.raises(ValueError, match=r"got 'blocks.1.mpl' \(did you mean blocks.1.mlp\?\)"):
        groups_named(tiny_model, ["blocks.1.mpl"])
    with pytest.raises(ValueError, match="got none"):
        groups_named(tiny_model, [])
    with pytest.raises(ValueError, match="unit must be one of blocks, branches, parts; got 'heads'"):
        part_groups(tiny_model, "heads")


FAMILIES = ("beit classifier, all positions", "clip zero-shot", "siglip zero-shot", "deit with teacher")


@pytest.mark.parametrize("name", FAMILIES)
def test_all_parts_of_the_giver_are_the_giver(name):
    receiver, giver = build(name, torch.float32), shifted(build(name, torch.float32))
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, wanted = receiver(pixels), giver(pixels)
        with weights_replaced(receiver, weights_of(giver, list(model_parts(giver)))):
            assert torch.equal(receiver(pixels), wanted)
        assert torch.equal(receiver(pixels), before)
        assert not torch.equal(before, wanted)
        with weights_replaced(receiver, {}):
            assert torch.equal(receiver(pixels), before)


@pytest.mark.long
@settings(max_examples=15, deadline=None)
@given(chosen=st.sets(st.sampled_from(list(model_parts(build("beit classifier, relative bias", torch.float32))))))
def test_any_parts_match_load_state_dict(chosen):
    name = "beit classifier, relative bias"
    receiver, giver = build(name, torch.float32), shifted(build(name, torch.float32))
    wanted = copy.deepcopy(receiver)
    parts, theirs = model_parts(giver), giver.state_dict()
    mixed = receiver.state_dict() | {n: theirs[n] for part in chosen for n in parts[part]}
    wanted.load_state_dict(mixed)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), weights_replaced(receiver, weights_of(giver, frozenset(chosen))):
        assert torch.equal(receiver(pixels), wanted(pixels))


def test_weights_come_back_after_an_error(tiny_model):
    giver = shifted(copy.deepcopy(tiny_model))
    before = {name: (parameter.data_ptr(), parameter.clone()) for name, parameter in tiny_model.named_parameters()}
    theirs = {name: parameter.clone() for name, parameter in giver.named_parameters()}
    fired = []

    def fail() -> None:
        with weights_replaced(tiny_model, weights_of(giver, ["head", "embed"])):
            assert tiny_model.head.weight.data_ptr() == giver.head.weight.data_ptr()  # nothing is copied
            pixels = torch.zeros(1, 3, 32, 32)
            tiny_model.run_with_hooks(pixels, fwd_hooks=[("hook_logits", lambda x, hook: fired.append(x.clone()))])
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert len(fired) == 1
    for name, parameter in tiny_model.named_parameters():
        assert parameter.data_ptr() == before[name][0]
        assert torch.equal(parameter, before[name][1])
        assert parameter.requires_grad
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in giver.named_parameters())
    half = {name: tensor[:1] for name, tensor in weights_of(giver, ["head"]).items()}
    with pytest.raises(ValueError, match=r"head.weight must be \[5, 32\]"), weights_replaced(tiny_model, half):
        pass
    with pytest.raises(AttributeError), weights_replaced(tiny_model, {"head.wieght": giver.head.weight}):
        pass
    assert torch.equal(tiny_model.head.weight, before["head.weight"][1])


def test_pairs_that_do_not_fit_are_refused(tiny_model, tiny_hf):
    from mechvit import HookedViT

    check_weights_fit(tiny_model, tiny_model)
    other = build("clip zero-shot", torch.float32)
    with pytest.raises(ValueError, match="must have the same config; their d_mlp is 64 and 48"):
        check_weights_fit(tiny_model, other)
    with pytest.raises(ValueError, match=r"comparing weights one by one needs .* differ in shape \(d_mlp 64 and 48\)"):
        comparable_weights(tiny_model, other)
    half = copy.deepcopy(tiny_model).to(torch.float16)
    with pytest.raises(ValueError, match=r"their dtype is torch\.float32 and torch\.float16"):
        check_weights_fit(tiny_model, half)
    larger = copy.deepcopy(tiny_model)
    larger.image_processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=3)
    with pytest.raises(ValueError, match=r"resize and crop alike; .* resample bilinear and bicubic"):
        check_weights_fit(tiny_model, larger)
    check_weights_fit(tiny_model, HookedViT.from_hf(tiny_hf))  # pixels as they are: another normalisation
