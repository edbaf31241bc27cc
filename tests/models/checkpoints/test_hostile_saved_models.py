"""Saved HookedViTs that are damaged: one line that names the folder, before anything large is built."""

from __future__ import annotations

import json
import math
import re
import resource
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechvit import HookedViT


@pytest.fixture
def ours(whole_checkpoint, tmp_path) -> Path:
    HookedViT.from_pretrained(whole_checkpoint, device="cpu").save_pretrained(tmp_path / "ours")
    return tmp_path / "ours"


def refused_ours(folder: Path) -> str:
    with pytest.raises(ValueError, match=re.escape(str(folder))) as error:
        HookedViT.from_pretrained(folder, device="cpu")
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 1000
    return line


@pytest.mark.parametrize(
    "changes",
    [
        {"n_layers": 10**6},
        {"n_layers": 10**12},
        {"n_channels": 10**6},
        {"d_mlp": 10**8},
        {"d_model": 0},
        {"d_model": "x"},
        {"n_heads": None},
        {"architecture": "os"},
        {"dtype": "load"},
        {"family": "x"},
        {"id2label": []},
        {"image_size": 10**6},
        {"n_registers": 10**7},
    ],
    ids=str,
)
def test_our_config_is_compared_with_our_weights_first(changes, ours):
    about = json.loads((ours / "hooked_vit.json").read_text())
    about["hooked_vit"] |= changes
    (ours / "hooked_vit.json").write_text(json.dumps(about))
    started, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused_ours(ours)
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000


@pytest.mark.parametrize("text", ["[]", "{}", "half", '{"hooked_vit": [], "hugging_face": []}'])
def test_our_config_of_another_form_is_refused(text, ours):
    (ours / "hooked_vit.json").write_text(text)
    refused_ours(ours)


def test_our_weights_are_checked(ours):
    path = ours / "hooked_vit.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(tensors | {"head.weight": tensors["head.weight"] * math.nan}, path)
    assert "head.weight holds 160 values that are NaN or infinite" in refused_ours(ours)
    del tensors["blocks.1.attn.q.weight"]
    save_file(tensors | {"surplus": torch.zeros(2), "head.bias": torch.zeros(7)}, path)
    line = refused_ours(ours)
    assert "missing blocks.1.attn.q.weight; left over surplus; head.bias is (7,), must be (5,)" in line
    path.write_bytes(path.read_bytes()[:-10])
    assert f"{path} is damaged or no safetensors file" in refused_ours(ours)
    path.unlink()
    assert str(path) in refused_ours(ours)
