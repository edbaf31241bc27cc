"""Published SAEs whose files are wrong: each is refused in one line that names the file and what is wrong in it."""

from __future__ import annotations

import json

import pytest
import torch
from sae_lens import SAE, JumpReLUSAE, JumpReLUSAEConfig, TopKSAE, TopKSAEConfig
from sae_lens.saes.sae import SAEMetadata
from safetensors.torch import load_file, save_file

from mechvit.saes import load_sae
from mechvit.saes.sae_files import REQUIRED_SETTINGS

ABOUT = SAEMetadata(hook_name="blocks.1.hook_resid_post", hook_tokens="all")
CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A foreign TopK SAE as stock sae-lens saves it."""
    sae = TopKSAE(TopKSAEConfig(d_in=6, d_sae=9, k=3, rescale_acts_by_decoder_norm=True, metadata=ABOUT))
    sae.save_model(tmp_path)
    return tmp_path


def rewrite(folder, change):
    path = folder / CFG
    config = json.loads(path.read_text())
    changed = change(config)
    path.write_text(json.dumps(config if changed is None else changed))


@pytest.mark.parametrize(("cls", "config"), [(TopKSAE, TopKSAEConfig), (JumpReLUSAE, JumpReLUSAEConfig)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_what_stock_sae_lens_saves_loads_as_stock_sae_lens_loads_it(tmp_path, cls, config, dtype):
    settings = {"k": 3, "rescale_acts_by_decoder_norm": True} if cls is TopKSAE else {}
    sae = cls(config(d_in=6, d_sae=9, dtype=dtype, metadata=ABOUT, **settings))
    sae.save_model(tmp_path)
    ours, stock = load_sae(tmp_path), SAE.load_from_disk(tmp_path)
    assert type(ours) is type(stock) is cls
    assert ours.cfg.to_dict() == stock.cfg.to_dict()
    for name, weight in stock.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight)


SETTINGS = {
    **{f"no {name}": (lambda c, n=name: c.pop(n) and None, f"{CFG} lacks {name}") for name in REQUIRED_SETTINGS},
    "a list": (lambda c: [c], "must hold a JSON object; got list"),
    "a number": (lambda c: 3, "must hold a JSON object; got int"),
    "d_in as text": (lambda c: c.update(d_in="6"), "d_in must be int; got '6'"),
    "d_in as a truth value": (lambda c: c.update(d_in=True), "d_in must be int; got True"),
    "d_sae null": (lambda c: c.update(d_sae=None), "d_sae must be int; got None"),
    "d_in 0": (lambda c: c.update(d_in=0), "d_in must be at least 1; got 0"),
    "k as a fraction": (lambda c: c.update(k=2.5), "k must be int; got 2.5"),
    "k above d_sae": (lambda c: c.update(k=10), "k must be 1 to d_sae, 9; got 10"),
    "k 0": (lambda c: c.update(k=0), "k must be 1 to d_sae, 9; got 0"),
    "a switch as text": (lambda c: c.update(apply_b_dec_to_input="false"), "apply_b_dec_to_input must be bool; got 'f"),
    "an unknown dtype": (lambda c: c.update(dtype="fp32"), "dtype must be one of .*float32.*; got 'fp32'"),
    "a dtype list": (lambda c: c.update(dtype=["float32"]), r"dtype must be one of .*; got \['float32'\]"),
    "an unknown architecture": (lambda c: c.update(architecture="topkk"), "no architecture 'topkk' to load; known are"),
    "in training": (lambda c: c.update(architecture="batchtopk"), "publish it with save_inference_model"),
    "an architecture list": (lambda c: c.update(architecture=["topk"]), r"no architecture \['topk'\]"),
    "an unknown normalisation": (lambda c: c.update(normalize_activations="l2"), "normalize_activations must be"),
    "an unknown shape": (lambda c: c.update(reshape_activations="z"), "reshape_activations must be .*; got 'z'"),
    "metadata as a list": (lambda c: c.update(metadata=[1]), "metadata must be a JSON object; got list"),
    "a hook's number": (lambda c: c["metadata"].update(hook_name=7), "hook_name must name a hook point; got 7"),
    "another width": (lambda c: c.update(d_in=7), r"W_dec is \[9, 6\], must be \[9, 7\]"),
    "a width that no machine holds": (lambda c: c.update(d_in=10**15), r"W_dec is \[9, 6\], must be"),
    "another number of latents": (lambda c: c.update(d_sae=10), r"W_enc is \[6, 9\], must be \[6, 10\]"),
    "a version that is none": (
        lambda c: c["metadata"].update(sae_lens_version="six"),
        "sae_lens_version must be a version, .*; got .six",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_are_missing_or_wrong_are_named(folder, case):
    change, message = SETTINGS[case]
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message) as refused:
        load_sae(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def without(weights, name):
    weights.pop(name)


def mark(weights, name, value):
    weights[name].view(-1)[3] = value


TENSORS = {
    "missing": (lambda w: without(w, "W_dec"), "it lacks W_dec"),
    "missing bias": (lambda w: without(w, "b_enc"), "it lacks b_enc"),
    "left over": (lambda w: w.update(b_gate=torch.zeros(9)), "b_gate is left over"),
    "mis-shaped": (lambda w: w.update(b_enc=torch.zeros(8)), r"b_enc is \[8\], must be \[9\]"),
    "transposed": (lambda w: w.update(W_enc=w["W_enc"].T.contiguous()), r"W_enc is \[9, 6\], must be \[6, 9\]"),
    "NaN": (lambda w: mark(w, "W_enc", float("nan")), "W_enc holds 1 values that are NaN or infinite, of 54"),
    "infinity": (lambda w: mark(w, "b_dec", float("inf")), "b_dec holds 1 values that are NaN or infinite, of 6"),
    "minus infinity": (lambda w: mark(w, "W_dec", float("-inf")), "W_dec holds 1 values"),
    "empty": (lambda w: w.clear(), "it lacks W_enc"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_weights_that_are_missing_or_wrong_are_named(folder, case):
    change, message = TENSORS[case]
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(ValueError, match=message) as refused:
        load_sae(folder)
    assert str(folder / WEIGHTS) in str(refused.value)


def test_weights_that_overflow_in_the_dtype_of_the_settings_are_named(folder):
    weights = load_file(folder / WEIGHTS)
    mark(weights, "W_dec", 1e6)
    save_file(weights, folder / WEIGHTS)
    rewrite(folder, lambda c: c.update(dtype="float16"))
    with pytest.raises(ValueError, match="W_dec holds 1 values"):
        load_sae(folder)


@pytest.mark.parametrize("damage", ["truncated", "text", "nothing", "header"])
def test_a_damaged_file_is_named(folder, damage):
    path = folder / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(
        {"truncated": whole[:-5], "text": b"no tensors here", "nothing": b"", "header": b"\xff" * 9 + whole[9:]}[damage]
    )
    with pytest.raises(ValueError, match="is damaged or no safetensors file") as refused:
        load_sae(folder)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("text", [b"{", b"", b"\xff\xfe{}"])
def test_settings_that_are_no_json_are_named(folder, text):
    (folder / CFG).write_bytes(text)
    with pytest.raises(ValueError, match=r"cfg\.json is damaged or no JSON"):
        load_sae(folder)


def test_weights_of_older_sae_lens_still_load(folder):
    """Its scaling_factor of ones, which it leaves out when it loads."""
    weights = load_file(folder / WEIGHTS)
    save_file({**weights, "scaling_factor": torch.ones(9)}, folder / WEIGHTS)
    assert torch.equal(load_sae(folder).W_dec, weights["W_dec"])
    save_file({**weights, "scaling_factor": torch.full((9,), 2.0)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match="scaling_factor is left over"):
        load_sae(folder)
