"""Hostile configs of checkpoints: one line that names the folder, before anything large is built."""

from __future__ import annotations

import json
import math
import re
import resource
import time
from typing import Any

import pytest
import torch
from hf_zoo import ZOO
from hostile_folders import JSON, edit, refusal

from mechvit import HookedViT
from mechvit.models.checkpoints.checkpoint_config import read_hf_config
from mechvit.models.checkpoints.loading import load_hf_model
from mechvit.models.hook_table import checkpoint_table

SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no width": ({"hidden_size": 0}, "hidden_size of its config.json must be at least 1; got 0"),
    "a word for the width": ({"hidden_size": "x"}, "hidden_size"),
    "null for the width": ({"hidden_size": None}, "hidden_size"),
    "a list for the width": ({"hidden_size": [32]}, "hidden_size"),
    "a width below nothing": ({"hidden_size": -32}, "hidden_size of its config.json must be at least 1; got -32"),
    "another width": ({"hidden_size": 48, "num_attention_heads": 3}, "must be (48,)"),
    "a million layers": ({"num_hidden_layers": 10**6}, "num_hidden_layers 1000000, and its weights can be those of"),
    "1e30 layers": ({"num_hidden_layers": 1e30}, "num_hidden_layers"),
    "no layer": ({"num_hidden_layers": 0}, "num_hidden_layers of its config.json must be at least 1"),
    "a million channels": ({"num_channels": 10**6}, "is (32, 3, 8, 8), must be (32, 1000000, 8, 8)"),
    "a million pixels": ({"image_size": 10**6}, "embeddings.position_embeddings is (1, 17, 32), must be"),
    "a billion labels": ({"id2label": None, "label2id": None, "num_labels": 10**9}, "num_labels 1000000000"),
    "a wide MLP": ({"intermediate_size": 10**8}, "must be (100000000,)"),
    "no head": ({"num_attention_heads": 0}, "num_attention_heads of its config.json must be at least 1; got 0"),
    "heads below nothing": ({"num_attention_heads": -2}, "num_attention_heads of its config.json must be"),
    "no patch": ({"patch_size": 0}, "patch_size of its config.json must be at least 1; got 0"),
    "half a patch": ({"patch_size": [8, 0]}, "patch_size of its config.json must be at least 1; got [8, 0]"),
    "no picture": ({"image_size": 0}, "image_size of its config.json must be at least 1; got 0"),
    "no number for eps": ({"layer_norm_eps": math.nan}, "layer_norm_eps of its config.json must be finite"),
    "eps below nothing": ({"layer_norm_eps": -1.0}, "layer_norm_eps of its config.json must be finite and at least 0"),
    "dropout above one": (
        {"hidden_dropout_prob": 3.0},
        "hidden_dropout_prob of its config.json must be in [0, 1); got 3.0",
    ),
    "an unknown activation": (
        {"hidden_act": "nonsense"},
        "hidden_act of its config.json must be an activation that transformers has, as gelu; got 'nonsense'",
    ),
    "an unknown activation of the pooler": ({"pooler_act": "x"}, "pooler_act of its config.json must be"),
    "layers of their own": ({"per_layer_config": {"0": {"layer_norm_eps": 0.5}}}, "per_layer_config"),
    "a dtype that is a function": ({"dtype": "load"}, "dtype"),
    "an unknown dtype": ({"dtype": "float33"}, "float33"),
    "names that are no dict": ({"id2label": ["a", "b"]}, "id2label"),
    "names under words": ({"id2label": {"first": "a"}}, "id2label of its config.json must name the classes by index"),
    "null for the names": ({"id2label": None}, "id2label of its config.json must name the classes by index"),
    "null for a name": ({"id2label": {"0": None, "1": "b"}}, "got {'0': None}. Correct it"),
    "a list for a name": ({"id2label": {"0": "a", "1": ["b"]}}, "got {'1': ['b']}. Correct it"),
    "a truth value for a name": ({"id2label": {"0": True}}, "id2label"),
    "a number for the problem": (
        {"problem_type": 5},
        "problem_type of its config.json must be regression, single_label",
    ),
    "a list for the problem": ({"problem_type": ["regression"]}, "problem_type of its config.json"),
    "an unknown problem": ({"problem_type": "ranking"}, "problem_type of its config.json"),
    "a truth value for the problem": ({"problem_type": False}, "problem_type of its config.json"),
    "a word for the labels": (
        {"id2label": None, "num_labels": "x"},
        "num_labels of its config.json must be the number",
    ),
    "labels below nothing": ({"num_labels": -1}, "num_labels of its config.json"),
    "a truth value for the labels": ({"num_labels": True}, "num_labels of its config.json"),
    "a method": ({"to_dict": "x"}, "sets to_dict"),
    "classes as a word": ({"architectures": "ViTForImageClassification"}, "architectures"),
    "classes that are no words": ({"architectures": [3]}, "architectures"),
    "a kind that is a list": ({"model_type": ["vit"]}, "model_type"),
    "an auto_map that is a list": ({"auto_map": ["code.Mine"]}, "auto_map"),
    "quantised by a word": ({"quantization_config": "int8"}, "quantization_config"),
    "weights elsewhere": ({"transformers_weights": "../other/model.safetensors"}, "transformers_weights"),
    "configs elsewhere": ({"configuration_files": ["../config.json"]}, "configuration_files"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_makes_no_model_is_refused_at_once(name, saved_checkpoint):
    changes, said = SETTINGS[name]
    edit(saved_checkpoint, **changes)
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert said in refusal(saved_checkpoint)
    assert time.process_time() - started < 10  # measured: 0.1; a million layers took 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000  # kB; a million channels took 4.4 GB


def test_a_file_in_the_place_of_a_checkpoint_is_said_to_be_one(tmp_path):
    (tmp_path / "notes.txt").write_text("no checkpoint")
    for path in ("/dev/null", tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match=rf"^{path} must be a folder with a config.json, .* got a file\."):
            read_hf_config(path)


@pytest.mark.parametrize(
    "flags",
    [
        {"return_dict": False},
        {"use_return_dict": False},
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"torchscript": True},
        {"use_cache": "x"},
        {"chunk_size_feed_forward": -3},
        {"chunk_size_feed_forward": "x"},
        {"tie_last_hidden_states": "x"},
        {"use_bfloat16": True},
        {"return_dict": "x", "output_hidden_states": [1]},
        {"return_dict": None, "output_attentions": None, "output_hidden_states": None},
    ],
    ids=str,
)
def test_what_shapes_transformers_output_changes_nothing(flags, saved_checkpoint, whole_checkpoint):
    """Else a fine-tuning would read the logits off a tuple."""
    edit(saved_checkpoint, **flags)
    pixels, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 3])
    found, wanted = (
        load_hf_model(folder).eval()(pixels, labels=labels) for folder in (saved_checkpoint, whole_checkpoint)
    )
    assert found.keys() == wanted.keys() == {"loss", "logits"}
    assert torch.equal(found.logits, wanted.logits)
    assert torch.equal(
        HookedViT.from_pretrained(saved_checkpoint, device="cpu")(pixels).detach(),
        HookedViT.from_pretrained(whole_checkpoint, device="cpu")(pixels).detach(),
    )


@pytest.mark.parametrize("flags", [{"return_dict": False}, {"output_attentions": True}])
def test_flags_of_a_tower_change_nothing_either(flags, tmp_path):
    ZOO["clip zero-shot"]().save_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 32, 32)
    wanted = load_hf_model(tmp_path).get_image_features(pixels).pooler_output
    config = json.loads((tmp_path / "config.json").read_text())
    edit(tmp_path, **flags, **{name: config[name] | flags for name in ("vision_config", "text_config")})
    assert torch.equal(load_hf_model(tmp_path).get_image_features(pixels).pooler_output, wanted)


@pytest.mark.parametrize("name", JSON)
def test_a_config_that_is_none_is_refused(name, saved_checkpoint):
    text = JSON[name]
    (saved_checkpoint / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    holds = (
        "its config.json must hold settings by name"
        if name in ("a list", "a word", "null")
        else "config.json is damaged"
    )
    assert holds in refusal(saved_checkpoint)
    with pytest.raises(ValueError, match=r"config\.json"):
        read_hf_config(saved_checkpoint)


@pytest.mark.parametrize("tower", ["vision_config", "text_config"])
def test_both_towers_are_compared(tower, tmp_path):
    ZOO["clip zero-shot"]().save_pretrained(tmp_path)
    own = json.loads((tmp_path / "config.json").read_text())[tower]
    edit(tmp_path, **{tower: own | {"num_hidden_layers": 10**6}})
    assert "num_hidden_layers 1000000" in refusal(tmp_path)
    edit(tmp_path, **{tower: own | {"intermediate_size": 10**7}})
    assert "10000000" in refusal(tmp_path)
    edit(tmp_path, **{tower: [own]})
    assert tower in refusal(tmp_path)


def test_layers_are_bounded_where_there_are_no_weights_to_compare(saved_checkpoint):
    (saved_checkpoint / "model.safetensors").unlink()
    assert read_hf_config(saved_checkpoint).num_hidden_layers == 3
    edit(saved_checkpoint, num_hidden_layers=10**6)
    with pytest.raises(ValueError, match="num_hidden_layers 1000000"):
        read_hf_config(saved_checkpoint)


@pytest.mark.parametrize("changes", [{"hidden_size": 0}, {"hidden_size": "x"}, {"num_hidden_layers": 10**6}], ids=str)
def test_the_table_of_hook_points_refuses_them_too(changes, saved_checkpoint):
    edit(saved_checkpoint, **changes)
    with pytest.raises(ValueError, match=re.escape(str(saved_checkpoint))) as error:
        checkpoint_table(str(saved_checkpoint))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "part", "setting"),
    [
        ("mae encoder", None, "image_size"),
        ("siglip zero-shot", "vision_config", "image_size"),
        ("siglip zero-shot", "text_config", "max_position_embeddings"),
        ("dinov3 encoder", None, "hidden_size"),
    ],
)
def test_what_transformers_fills_in_is_not_computed_first(name, part, setting, tmp_path):
    """Sine and cosine positions, positions' numbers, rotary angles: of a million pixels they would take gigabytes."""
    ZOO[name]().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for value in (10**5, 10**6, 10**9):
        edit(tmp_path, **({part: config[part] | {setting: value}} if part else {setting: value}))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refusal(tmp_path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000
