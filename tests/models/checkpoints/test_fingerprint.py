"""A checkpoint's hash depends on its own weights and nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from mechvit import HookedViT
from mechvit.models.checkpoints.fingerprint import checkpoint_hash


def test_hash_matches_a_plain_sha256(tiny_model):
    found = hashlib.sha256()
    weights = {name: p.detach().numpy() for name, p in tiny_model.named_parameters()}
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name], dtype="<f4")
        found.update(f"{name} {values.shape}\n".encode() + values.tobytes())
    assert checkpoint_hash(tiny_model) == found.hexdigest()


def test_hash_survives_saving_and_changes_with_one_weight(tiny_model, tmp_path):
    own = checkpoint_hash(tiny_model)
    tiny_model.to_hf().save_pretrained(tmp_path / "hf")
    tiny_model.image_processor.save_pretrained(tmp_path / "hf")
    tiny_model.save_pretrained(tmp_path / "hooked")
    for folder in ("hf", "hooked"):
        assert checkpoint_hash(HookedViT.from_pretrained(tmp_path / folder, device="cpu")) == own
    with torch.no_grad():
        tiny_model.blocks[2].mlp.fc1.weight[0, 0] += 1e-6
    assert checkpoint_hash(tiny_model) != own


def test_hash_is_of_values_and_not_of_their_type(tiny_model):
    own = checkpoint_hash(tiny_model)
    half = checkpoint_hash(tiny_model.to(torch.bfloat16))
    assert half != own  # rounding changed the values
    assert checkpoint_hash(tiny_model.to(torch.float32)) == half
    assert checkpoint_hash(tiny_model.to(torch.float64)) == half


def test_hash_leaves_out_what_is_only_carried(tiny_model):
    own = checkpoint_hash(tiny_model)
    tiny_model.carried.keep({"vit.embeddings.mask_token": torch.ones(1, 1, 32)})
    assert checkpoint_hash(tiny_model) == own
