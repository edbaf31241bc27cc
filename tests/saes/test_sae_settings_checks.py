"""Every setting in a published SAE's cfg.json, of a wrong type or value: one line names the file, it and its value."""

from __future__ import annotations

import json
import math
import re
import types
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE, TopKSAE, TopKSAEConfig
from sae_lens.registry import SAE_CLASS_REGISTRY
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import save_file

from mechvit.saes import load_sae

SMALL = {"d_in": 6, "d_sae": 8, "d_out": 6, "k": 3, "n_heads": 2, "bottleneck_factor": 2, "kval_topk": 3}
WRONG: dict[Any, list[Any]] = {
    int: ["x", None, [3], {}, True, 2.5, -1, 0, math.nan, "3"],
    float: ["x", None, [0.5], {}, True, math.nan, math.inf, -1.0, "0.5"],
    bool: ["x", None, 1, 0, "true", [], {}],
    str: ["x", None, 3, [], True, ["none"], {}],
}
"""Values that no setting of a type may be, by its type."""


def publish(folder: Path, architecture: str) -> Path:
    sae_class, config_class = SAE_CLASS_REGISTRY[architecture]
    names = {field.name for field in fields(config_class)}
    about = SAEMetadata(hook_name="blocks.1.hook_resid_post", hook_tokens="all", k=3, lr=0.1)
    settings = {name: value for name, value in SMALL.items() if name in names}
    if "transcoder" in architecture:
        settings["apply_b_dec_to_input"] = False
    config = config_class(**settings, metadata=about)
    sae_class(config).save_model(folder)
    return folder


def change(folder: Path, part: str | None = None, **settings: Any) -> None:
    path = folder / "cfg.json"
    config = json.loads(path.read_text())
    (config[part] if part else config).update(settings)
    path.write_text(json.dumps(config))


def refusal(folder: Path) -> str:
    with pytest.raises(ValueError, match=re.escape(str(folder / "cfg.json"))) as refused:
        load_sae(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def kinds(wanted: Any) -> list[Any]:
    """The types of a declaration: `int | None` is int and NoneType, a choice of words is str."""
    if typing.get_origin(wanted) is typing.Literal:
        return [str]
    if typing.get_origin(wanted) in (types.UnionType, typing.Union):
        return [kind for part in typing.get_args(wanted) for kind in kinds(part)]
    return [wanted]


@pytest.mark.parametrize("architecture", sorted(SAE_CLASS_REGISTRY))
def test_every_setting_is_looked_at(architecture, tmp_path):
    folder = publish(tmp_path / "sae", architecture)
    whole = (folder / "cfg.json").read_text()
    load_sae(folder)
    declared = typing.get_type_hints(SAE_CLASS_REGISTRY[architecture][1])
    tried = 0
    for field in fields(SAE_CLASS_REGISTRY[architecture][1]):
        if field.name in ("metadata", "device"):
            continue
        first, *others = kinds(declared[field.name])
        for value in WRONG[first]:
            if value is None and types.NoneType in others:
                continue
            (folder / "cfg.json").write_text(whole)
            change(folder, **{field.name: value})
            line, tried = refusal(folder), tried + 1
            assert field.name in line, line
            assert str(value) in line, line
    assert tried > 30


@pytest.mark.parametrize("architecture", sorted(SAE_CLASS_REGISTRY))
def test_a_setting_that_the_architecture_does_not_read_is_refused(architecture, tmp_path):
    """sae-lens leaves it out without a word: the SAE would not be the one that the file tells of."""
    folder = publish(tmp_path / "sae", architecture)
    whole = (folder / "cfg.json").read_text()
    own = {field.name for field in fields(SAE_CLASS_REGISTRY[architecture][1])}
    every = {field.name: 3 for _, config in SAE_CLASS_REGISTRY.values() for field in fields(config)}
    for name, value in {**every, "threshold": "x", "rescale_acts_by_decoder_norm": "x", "treshold": 0.5}.items():
        if name not in own:
            (folder / "cfg.json").write_text(whole)
            change(folder, **{name: value})
            assert f"no setting {name} (it is {value!r} here) for the architecture {architecture}" in refusal(folder)


METADATA = {
    "hook_name": [7, ["a"], True],
    "hook_name_out": [7, {}],
    "hook_tokens": ["", "x", 0, False, [], ["all"]],
    "k": ["x", [3], True],
    "lr": ["x", {}],
    "sae_lens_version": ["six", 6, [6]],
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_are_read_are_looked_at(name, tmp_path):
    folder = publish(tmp_path / "sae", "topk")
    for value in METADATA[name]:
        change(folder, "metadata", **{name: value})
        line = refusal(folder)
        assert name in line
        assert repr(value) in line


def test_a_transcoders_bias_is_not_taken_off_its_input(tmp_path):
    folder = publish(tmp_path / "sae", "transcoder")
    change(folder, apply_b_dec_to_input=True)
    assert "apply_b_dec_to_input is not supported for transcoders" in refusal(folder)


def test_metadata_that_sae_lens_would_leave_out_are_refused(tmp_path):
    folder = publish(tmp_path / "sae", "topk")
    change(folder, "metadata", sae_lens_version=None)
    assert "metadata must name the version of sae-lens" in refusal(folder)


def test_notes_under_metadata_are_kept(tmp_path):
    folder = publish(tmp_path / "sae", "topk")
    change(folder, "metadata", threshold="x", author="me")
    assert load_sae(folder).cfg.metadata.author == "me"


def test_the_shape_of_heads_side_by_side_is_for_their_hook_point(tmp_path):
    folder = publish(tmp_path / "sae", "topk")
    change(folder, reshape_activations="hook_z")
    assert "reshape_activations must be none for an SAE of blocks.1.hook_resid_post; got 'hook_z'" in refusal(folder)


def test_more_layers_than_tensors_are_refused_before_any_is_made(tmp_path):
    folder = publish(tmp_path / "sae", "temporal")
    change(folder, n_attn_layers=10**9)
    assert "n_attn_layers is 1000000000" in refusal(folder)


# files from before version 6


@pytest.fixture
def old(tmp_path) -> Path:
    """A standard SAE as sae-lens 5 wrote it."""
    torch.manual_seed(0)
    weights = {"W_enc": torch.randn(6, 8), "W_dec": torch.randn(8, 6), "b_enc": torch.randn(8), "b_dec": torch.randn(6)}
    save_file(weights, tmp_path / "sae_weights.safetensors")
    config = {
        "architecture": "standard",
        "d_in": 6,
        "d_sae": 8,
        "activation_fn_str": "relu",
        "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False,
        "context_size": 50,
        "model_name": "vit",
        "hook_layer": 1,
        "hook_name": "blocks.1.hook_resid_post",
        "hook_head_index": None,
        "prepend_bos": False,
        "dataset_path": "photos",
        "dataset_trust_remote_code": True,
        "normalize_activations": "none",
        "dtype": "float32",
        "device": "cpu",
        "sae_lens_training_version": "5.10.0",
        "activation_fn_kwargs": {},
        "neuronpedia_id": None,
        "model_from_pretrained_kwargs": {},
        "seqpos_slice": [None],
    }
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    return tmp_path


def test_an_old_file_loads_as_stock_sae_lens_loads_it(old):
    x = torch.randn(3, 6)
    assert torch.equal(load_sae(old, "cpu")(x), SAE.load_from_disk(old)(x))
    change(old, normalize_activations=False)
    assert load_sae(old).cfg.normalize_activations == "none"


def test_an_old_file_of_a_topk_sae_keeps_its_k(old):
    change(old, activation_fn_str="topk", activation_fn_kwargs={"k": 2})
    sae = load_sae(old, "cpu")
    assert isinstance(sae, TopKSAE)
    assert int((sae.encode(torch.randn(5, 6)) > 0).sum(1).max()) == 2 == sae.cfg.k


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation_fn_str": "tanh-relu"}, "activation_fn_str must be relu or topk, .*; got 'tanh-relu'"),
        ({"activation_fn_str": None}, "activation_fn_str must be relu or topk, .*; got None"),
        ({"activation_fn": "gelu"}, "activation_fn must be relu or topk, .*; got 'gelu'"),
        ({"activation_fn_str": "topk"}, "activation_fn_kwargs.k must be 1 to d_sae, 8; got None"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": "x"}}, "activation_fn_kwargs.k must .*; got 'x'"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 9}}, "activation_fn_kwargs.k must .*; got 9"),
        ({"activation_fn_kwargs": [1]}, r"activation_fn_kwargs must be a JSON object; got \[1\]"),
        ({"finetuning_scaling_factor": "x"}, "finetuning_scaling_factor must be true or false; got 'x'"),
        ({"normalize_activations": "x"}, "normalize_activations must be .*x"),
        ({"threshold": "x"}, "no setting threshold"),
        ({"d_sae": "x"}, "d_sae must be int; got 'x'"),
    ],
    ids=str,
)
def test_a_wrong_setting_of_an_old_file_is_refused(changes, said, old):
    change(old, **changes)
    assert re.search(said, refusal(old))


def test_what_a_topk_sae_rescales_by_is_still_read(tmp_path):
    """The setting that this file's checks are about, right: codes and reconstruction as sae-lens's."""
    config = TopKSAEConfig(d_in=6, d_sae=8, k=3, rescale_acts_by_decoder_norm=True)
    TopKSAE(config).save_model(tmp_path)
    sae, x = load_sae(tmp_path, "cpu"), torch.randn(3, 6)
    assert sae.cfg.rescale_acts_by_decoder_norm is True
    assert torch.equal(sae(x), SAE.load_from_disk(tmp_path)(x))
