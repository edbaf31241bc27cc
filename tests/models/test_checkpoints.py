"""Checkpoints come back bit for bit, in both key layouts, and folding LayerNorm keeps the function."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechvit import HookedViT

KINDS = {
    "classifier": {},
    "no qkv bias": {"qkv_bias": False},
    "wide heads": {"head_dim": 24},
    "encoder": {"architecture": "ViTModel"},
    "encoder, no pooler": {"architecture": "ViTModel", "pooler": False},
    "encoder, narrow pooler": {"architecture": "ViTModel", "pooler_output_size": 12, "pooler_act": "relu"},
    "no classes": {"id2label": {}, "label2id": {}},
}

# transformers 5 module path -> transformers 4 module path, from the two libraries' ViT sources.
OLD_NAMES = {
    r"\blayers\.(\d+)\.": r"encoder.layer.\1.",
    r"attention\.q_proj": "attention.attention.query",
    r"attention\.k_proj": "attention.attention.key",
    r"attention\.v_proj": "attention.attention.value",
    r"attention\.o_proj": "attention.output.dense",
    r"mlp\.fc1": "intermediate.dense",
    r"mlp\.fc2": "output.dense",
}


def old_name(name: str) -> str:
    for new, old in OLD_NAMES.items():
        name = re.sub(new, old, name)
    return name


def assert_same_weights(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_memory_round_trip_is_exact(make_hf, run_hf, pixels, kind):
    hf_model = make_hf(**kind)
    back = HookedViT.from_hf(hf_model).to_hf()
    assert type(back) is type(hf_model)
    assert not back.training
    assert_same_weights(back, hf_model)
    ours, theirs = back.config.to_dict(), hf_model.config.to_dict()
    changed = {name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name)}
    assert changed <= {"architectures", "dtype"}
    assert back.config.architectures == [type(hf_model).__name__]
    assert torch.equal(run_hf(back, pixels)[0], run_hf(hf_model, pixels)[0])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_disk_round_trip_is_exact(make_hf, tmp_path, kind):
    hf_model = make_hf(**kind)
    hf_model.save_pretrained(tmp_path / "first")
    model = HookedViT.from_pretrained(tmp_path / "first", device="cpu")
    assert_same_weights(model.to_hf(), hf_model)
    model.to_hf().save_pretrained(tmp_path / "second")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize("architecture", ["ViTForImageClassification", "ViTModel"])
def test_both_key_layouts_load(make_hf, tmp_path, architecture, layout):
    hf_model = make_hf(architecture)
    hf_model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    new = {name: tensor.clone() for name, tensor in hf_model.state_dict().items()}
    old = {old_name(name): tensor for name, tensor in new.items()}
    assert len(old.keys() - new.keys()) == 3 * 16, "every parameter of every layer is called otherwise"
    path.unlink()
    save_file(old if layout == "old" else new, path, metadata={"format": "pt"})
    assert_same_weights(HookedViT.from_pretrained(tmp_path, device="cpu").to_hf(), hf_model)


def test_save_pretrained_writes_the_old_layout(make_hf, tmp_path):
    """The premise of converting from a loaded model's state dict: the file's keys are not the module's."""
    hf_model = make_hf()
    hf_model.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == {old_name(name) for name in hf_model.state_dict()}


def test_sharded_checkpoint_loads(make_hf, tmp_path):
    hf_model = make_hf()
    hf_model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_same_weights(HookedViT.from_pretrained(tmp_path, device="cpu").to_hf(), hf_model)


def test_copy_is_independent(make_hf, pixels):
    hf_model = make_hf()
    before = {name: tensor.clone() for name, tensor in hf_model.state_dict().items()}
    model = HookedViT.from_hf(hf_model)
    logits, back = model(pixels), model.to_hf()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.hf_config.id2label[0] = "changed"
    assert all(torch.equal(hf_model.state_dict()[name], tensor) for name, tensor in before.items())
    assert hf_model.config.id2label[0] == back.config.id2label[0] == "ant"
    assert torch.equal(HookedViT.from_hf(back)(pixels), logits)


@pytest.mark.parametrize("saved", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_dtype_is_the_checkpoints_own_or_the_one_asked_for(make_hf, tmp_path, saved):
    hf_model = make_hf().to(saved)
    hf_model.save_pretrained(tmp_path)
    own = HookedViT.from_pretrained(tmp_path, device="cpu")
    assert own.cfg.dtype == saved == own.W_U.dtype
    assert_same_weights(own.to_hf(), hf_model)
    wide = HookedViT.from_pretrained(str(tmp_path), device="cpu", dtype=torch.float64)
    assert wide.cfg.dtype == torch.float64
    assert_same_weights(wide.to_hf(), hf_model.double())
    moved = own.to(torch.float64)
    assert moved.cfg.dtype == torch.float64
    assert moved.to_hf().config.dtype == torch.float64


def test_image_processor_is_loaded_and_optional(make_hf, tiny_processor, tmp_path):
    make_hf().save_pretrained(tmp_path)
    assert HookedViT.from_pretrained(tmp_path).image_processor is None
    tiny_processor.save_pretrained(tmp_path)
    found = HookedViT.from_pretrained(tmp_path).image_processor
    assert found.to_dict() == tiny_processor.to_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_folding_layer_norm_keeps_the_function(make_hf, run_hf, pixels, tmp_path, kind, dtype):
    atol = 1e-5 if dtype == torch.float32 else 1e-10
    hf_model = make_hf(**kind).to(dtype)
    hf_model.save_pretrained(tmp_path)
    plain = HookedViT.from_pretrained(tmp_path, device="cpu")
    folded = HookedViT.from_pretrained(tmp_path, device="cpu", fold_ln=True)
    before, after = (model.run_with_cache(pixels.to(dtype)) for model in (plain, folded))
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=atol)
    for name in before[1]:
        if "resid" in name or "pattern" in name or "mlp.hook" in name or "attn.hook" in name:
            torch.testing.assert_close(after[1][name], before[1][name], rtol=0, atol=atol)
    for block in folded.blocks:
        for ln in (block.ln1, block.ln2):
            assert torch.equal(ln.w, torch.ones_like(ln.w))
            assert torch.equal(ln.b, torch.zeros_like(ln.b))
    assert (folded.cfg.normalization_type, plain.cfg.normalization_type) == ("LNPre", "LN")
    has_head = folded.head is not None
    assert torch.equal(folded.ln_final.w, torch.ones_like(folded.ln_final.w)) == has_head
    theirs = run_hf(folded.to_hf(), pixels.to(dtype))
    torch.testing.assert_close(theirs[0], run_hf(hf_model, pixels.to(dtype))[0], rtol=0, atol=atol)
