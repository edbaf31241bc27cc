"""Checkpoints that HookedViT refuses: each error says which, what is wrong with it, and what would be right."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
import transformers
from hf_zoo import ZOO
from safetensors.torch import load_file, save_file
from zoo_options import daily

from mechvit import HookedViT

SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
SUPPORTED = ("ViTForImageClassification", "ViTModel")


def make_resnet():
    config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")
    return transformers.ResNetForImageClassification(config)


def make_swin():
    config = transformers.SwinConfig(image_size=16, patch_size=4, embed_dim=4, depths=[1], num_heads=[1], window_size=2)
    return transformers.SwinForImageClassification(config)


def make_bert():
    return transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=11, **SMALL))


def make_levit():
    config = transformers.LevitConfig(
        image_size=32, hidden_sizes=[16, 16, 16], num_attention_heads=[1, 1, 1], depths=[1, 1, 1], key_dim=[4, 4, 4]
    )
    return transformers.LevitForImageClassification(config)


def make_masked_beit():
    config = transformers.BeitConfig(image_size=16, patch_size=8, vocab_size=8, **SMALL)
    return transformers.BeitForMaskedImageModeling(config)


OTHERS = {
    "ResNetForImageClassification": make_resnet,
    "SwinForImageClassification": make_swin,
    "BertForSequenceClassification": make_bert,
    "LevitForImageClassification": make_levit,
    "BeitForMaskedImageModeling": make_masked_beit,
}


@pytest.fixture
def saved(make_hf, tmp_path):
    make_hf().save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder, change):
    """Change a checkpoint's tensors: `change` gets the dict."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def refusal(where) -> str:
    with pytest.raises(ValueError, match=re.escape(str(where))) as error:
        HookedViT.from_pretrained(where, device="cpu")
    return str(error.value)


@pytest.mark.parametrize("name", OTHERS)
def test_other_architecture_is_named_before_its_weights_are_read(tmp_path, name):
    hf_model = OTHERS[name]()
    hf_model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    message = refusal(tmp_path)
    assert name in message
    assert repr(hf_model.config.model_type) in message
    assert all(kind in message for kind in SUPPORTED)


@pytest.mark.parametrize("name", OTHERS)
def test_other_model_in_memory_is_named(name):
    with pytest.raises(ValueError, match=rf"ViTForImageClassification, .*ViTModel.*{name}"):
        HookedViT.from_hf(OTHERS[name]())


def test_no_hugging_face_model_is_named():
    with pytest.raises(ValueError, match=r"ViTForImageClassification, .*ViTModel.*Linear"):
        HookedViT.from_hf(torch.nn.Linear(2, 2))


def test_subclass_loads_as_its_base(make_hf, pixels):
    class Mine(transformers.ViTForImageClassification):
        pass

    hf_model = make_hf()
    mine = Mine(hf_model.config).eval()
    mine.load_state_dict(hf_model.state_dict())
    assert torch.equal(HookedViT.from_hf(mine)(pixels), HookedViT.from_hf(hf_model)(pixels))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "hologram", "architectures": ["HologramModel"]}, "HologramModel (model_type 'hologram')"),
        ({"architectures": None}, "a config that names no architecture (model_type 'vit')"),
        ({"architectures": ["ViTForFoo"]}, "ViTForFoo"),
    ],
    ids=["unknown type", "no architecture", "unknown class"],
)
def test_unknown_kind_is_named(saved, changes, named):
    edit_config(saved, **changes)
    message = refusal(saved)
    assert named in message
    assert all(kind in message for kind in SUPPORTED)


def test_missing_folder(tmp_path):
    assert "no such folder" in refusal(tmp_path / "nowhere")


def test_folder_without_config(saved):
    (saved / "config.json").unlink()
    assert "a folder without one" in refusal(saved)


def test_broken_config(saved):
    (saved / "config.json").write_text('{"model_type": "vit",')
    assert "config.json" in refusal(saved)


def test_unreachable_hub_id_names_it():
    message = refusal("mechvit-tests/no-such-model")
    assert "a model on the Hugging Face hub" in message
    assert "connection" in message


def test_pickled_weights_are_refused(make_hf, saved):
    (saved / "model.safetensors").unlink()
    torch.save(make_hf().state_dict(), saved / "pytorch_model.bin")
    assert "safetensors" in refusal(saved)


def test_truncated_weights_are_refused(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "model.safetensors is damaged or no safetensors file" in refusal(saved)


def test_missing_weight_is_named(saved):
    rewrite(saved, lambda tensors: tensors.pop("vit.encoder.layer.1.intermediate.dense.bias"))
    assert "; missing vit.layers.1.mlp.fc1.bias. " in refusal(saved)


def test_left_over_weight_is_named(saved):
    rewrite(saved, lambda tensors: tensors.update({"vit.surplus": torch.zeros(2)}))
    assert "left over vit.surplus" in refusal(saved)


def test_mis_shaped_weight_is_named_with_both_shapes(saved):
    rewrite(saved, lambda tensors: tensors.update({"classifier.weight": torch.zeros(7, 32)}))
    message = refusal(saved)
    assert "classifier.weight is (7, 32), must be (5, 32)" in message
    assert "missing" not in message


def test_every_fault_is_named_at_once(saved):
    def change(tensors):
        del tensors["vit.layernorm.weight"], tensors["classifier.bias"]
        tensors["vit.surplus"] = torch.zeros(2)
        tensors["vit.embeddings.cls_token"] = torch.zeros(1, 1, 3)

    rewrite(saved, change)
    message = refusal(saved)
    for fault in ("missing vit.layernorm.weight", "missing classifier.bias", "left over vit.surplus", "(1, 1, 3)"):
        assert fault in message


def test_half_a_pooler_is_no_pooler_less_checkpoint(make_hf, tmp_path):
    make_hf("ViTModel").save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.pop("pooler.dense.bias"))
    assert "missing pooler.dense.bias" in refusal(tmp_path)


def test_config_with_more_layers_than_weights(saved):
    edit_config(saved, num_hidden_layers=4)
    assert "; missing 16 weights of vit.layers.3. " in refusal(saved)


def test_config_with_fewer_layers_than_weights(saved):
    edit_config(saved, num_hidden_layers=2)
    assert "; left over 16 weights of vit.layers.2. " in refusal(saved)


def test_oblong_images_are_refused(make_hf):
    with pytest.raises(ValueError, match=r"image_size must be square; got \(32, 16\)"):
        HookedViT.from_hf(make_hf(image_size=(32, 16)))


def test_square_tuple_is_a_size(make_hf, pixels):
    assert HookedViT.from_hf(make_hf(image_size=(32, 32), patch_size=[8, 8])).cfg.n_tokens == 17


def test_mixed_dtypes_are_refused(make_hf):
    hf_model = make_hf()
    hf_model.classifier.half()
    with pytest.raises(ValueError, match=r"one dtype.*torch.float16, torch.float32"):
        HookedViT.from_hf(hf_model)


def test_in_memory_weights_that_do_not_fit_are_named(make_hf):
    hf_model = make_hf()
    hf_model.vit.layers[0].extra = torch.nn.Linear(2, 2, bias=False)
    hf_model.classifier = torch.nn.Linear(32, 9)
    with pytest.raises(ValueError, match=r"left over vit.layers.0.extra.weight") as error:
        HookedViT.from_hf(hf_model)
    assert "classifier.weight is (9, 32), must be (5, 32)" in str(error.value)


def test_dropout_refuses_training_but_not_evaluation(make_hf):
    model = HookedViT.from_hf(make_hf(attention_probs_dropout_prob=0.1))
    assert not model.training
    with pytest.raises(ValueError, match=r"without dropout.*0\.1"):
        model.train()
    assert HookedViT.from_hf(make_hf()).train().training


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_quantised_checkpoint_is_refused_before_its_weights_are_read(saved, method):
    edit_config(saved, quantization_config={"quant_method": method})
    (saved / "model.safetensors").write_bytes(b"not weights")
    message = refusal(saved)
    assert f"quantised ({method})" in message
    assert "dequantise" in message


def test_integer_weights_in_memory_are_refused(make_hf):
    hf_model = make_hf()
    weight = hf_model.classifier.weight
    hf_model.classifier.weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"not quantised; got torch.float32, torch.int8"):
        HookedViT.from_hf(hf_model)


def test_remote_code_is_never_run(saved):
    (saved / "code.py").write_text("raise SystemExit('run')")
    edit_config(saved, model_type="mine", architectures=["Mine"], auto_map={"AutoModel": "code.Mine"})
    message = refusal(saved)
    assert "code of its own (AutoModel)" in message


def test_stale_auto_map_of_a_plain_vit_is_ignored(make_hf, saved, pixels):
    (saved / "code.py").write_text("raise SystemExit('run')")
    edit_config(saved, auto_map={"AutoModel": "code.Mine"})
    found = HookedViT.from_pretrained(saved, device="cpu")
    assert torch.equal(found(pixels), HookedViT.from_hf(make_hf())(pixels))


def test_labels_that_do_not_fit_the_head_are_refused(saved):
    names = {str(i): f"class {i}" for i in range(7)}
    edit_config(saved, id2label=names, label2id={name: int(i) for i, name in names.items()})
    assert "classifier.weight is (5, 32), must be (7, 32)" in refusal(saved)


@pytest.mark.parametrize("name", daily())
def test_missing_and_left_over_weights_of_every_family_are_named(name):
    hf_model = ZOO[name]()
    state = hf_model.state_dict()
    norms = ("norm1.weight", "layernorm_before.weight")
    block = next(key for key in state if key.endswith(norms) and "text_model" not in key)
    owner, _, own = block.rpartition(".")
    broken = copy.deepcopy(hf_model)
    delattr(broken.get_submodule(owner), own)
    broken.surplus = torch.nn.Linear(2, 2, bias=False)
    with pytest.raises(ValueError, match=f"missing {re.escape(block)}; left over surplus.weight"):
        HookedViT.from_hf(broken)
    broken = copy.deepcopy(hf_model)
    setattr(broken.get_submodule(owner), own, torch.nn.Parameter(torch.zeros(3)))
    with pytest.raises(ValueError, match=rf"{re.escape(block)} is \(3,\), must be \(32,\)"):
        HookedViT.from_hf(broken)


ADAPTER = '{"peft_type": "LORA", "base_model_name_or_path": "google/vit-base-patch16-224", "r": 8}'


@pytest.mark.parametrize("beside", [False, True])
def test_an_adapter_s_folder_is_named_as_such(tmp_path, beside):
    if beside:
        ZOO["vit encoder"]().save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text(ADAPTER)
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    kind = "a PEFT adapter beside a model" if beside else "a PEFT adapter"
    with pytest.raises(ValueError, match=rf"holds {kind}, not a whole model.*merge_and_unload\(\), and save"):
        HookedViT.from_pretrained(tmp_path)


@pytest.mark.parametrize("wrap", ["data parallel", "compiled", "peft"])
def test_wrapped_models_are_named_as_such(wrap):
    hf_model = ZOO["vit encoder"]()
    if wrap == "peft":
        kind = type("PeftModel", (torch.nn.Module,), {"__module__": "peft.peft_model"})
        wrapped, step = kind(), r"merge the adapter first, with merge_and_unload\(\)"
    elif wrap == "compiled":
        wrapped, step = torch.compile(hf_model), r"before torch.compile, its ._orig_mod"
    else:
        wrapped, step = torch.nn.DataParallel(hf_model), r"the model that it wraps, its .module"
    with pytest.raises(ValueError, match=f"wraps a model, and hooks go into the model itself: .*{step}"):
        HookedViT.from_hf(wrapped)
    assert HookedViT.from_hf(hf_model).cfg.architecture == type(hf_model).__name__


def test_index_buffers_of_old_checkpoints_are_no_weights(tmp_path):
    hf_model = ZOO["clip vision"]()
    hf_model.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"embeddings.position_ids": torch.arange(17)[None]}))
    assert HookedViT.from_pretrained(tmp_path, device="cpu").cfg.family == "clip"


EMBEDS = torch.randn(3, 24, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("embeds", "names", "message"),
    [
        (EMBEDS, None, "needs both"),
        (None, ["a"], "needs both"),
        (EMBEDS, ["a", "b"], r"must be \[2, "),
        (EMBEDS[:, :5], ["a", "b", "c"], r"must be \[3, "),
        (EMBEDS, ["a", "b", "b"], "different class_names; 'b' stands at 1, 2. Rename these"),
        (EMBEDS, "abc", "class_names must be a list of names, one per class; got 'abc'"),
        (EMBEDS, [1, 2, 3], r"class_names must be a list of names, one per class; got \[1, 2, 3\]"),
        (EMBEDS.tolist(), ["a", "b", "c"], r"text_embeds must be a tensor .class, .*; got a list"),
        (EMBEDS * torch.nan, ["a", "b", "c"], "finite"),
        (EMBEDS * 0, ["a", "b", "c"], "none of them zero"),
    ],
)
def test_text_embeddings_that_do_not_fit_are_refused(embeds, names, message):
    hf_model = ZOO["clip bare"]()
    width = hf_model.config.projection_dim
    if isinstance(embeds, torch.Tensor) and embeds.shape[1] == EMBEDS.shape[1]:
        embeds = embeds[:, :1].repeat(1, width)
    with pytest.raises(ValueError, match=message):
        HookedViT.from_hf(hf_model, text_embeds=embeds, class_names=names)


def test_text_embeddings_for_another_kind_are_refused(make_hf):
    with pytest.raises(ValueError, match="CLIPModel, SiglipModel, Siglip2Model; this is a ViTForImageClassification"):
        HookedViT.from_hf(make_hf(), text_embeds=EMBEDS, class_names=["a", "b", "c"])
