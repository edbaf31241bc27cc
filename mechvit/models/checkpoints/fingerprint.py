"""Hashes of a model's weights, by which SAEs and activation caches record which model they belong to."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from mechvit.models.hooked_vit import HookedViT


def checkpoint_hash(model: HookedViT) -> str:
    """Return the SHA-256, in hex, of a model's own weights: name, shape and little-endian float32 values, sorted by
    name.

    The device and a dtype that holds the same values make no difference: a bfloat16 checkpoint has the same hash when
    it is loaded as float32. A fine-tuned, folded or rounded model has another, and so has an encoder without its head.
    Weights that are only carried along for `to_hf` are left out.
    """
    found = hashlib.sha256()
    for name, tensor in sorted(model.own_state_dict().items()):
        values = tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()
        found.update(f"{name} {tuple(values.shape)}\n".encode())
        found.update(values.numpy().astype("<f4", copy=False).data)
    return found.hexdigest()
