"""Rewriting the weights without changing the function."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from .block import LayerNorm
from .hooked_vit import HookedViT


@torch.no_grad()
def fold_layer_norms(model: HookedViT) -> HookedViT:
    """Fold each LayerNorm's gain and bias into the weights that read it, in place, and return the model.

    W' = W diag(w), b' = b + W b_ln, computed in float64; then w = 1 and b_ln = 0, and
    `cfg.normalization_type` is "LNPre". The logits are the same up to rounding (1e-5 in float32), and the
    residual stream is not touched. A bare encoder keeps `ln_final`, whose output is its result. Query, key and value
    biases appear where the checkpoint had none.
    """
    for block in model.blocks:
        _fold(block.ln1, [block.attn.q, block.attn.k, block.attn.v])
        _fold(block.ln2, [block.mlp.fc1])
    if model.head is not None:
        _fold(model.ln_final, [model.head])
    model.cfg = dataclasses.replace(model.cfg, normalization_type="LNPre", qkv_bias=True)
    model.hf_config.qkv_bias = True
    return model


def _fold(ln: LayerNorm, readers: list[nn.Linear]) -> None:
    for linear in readers:
        weight = linear.weight.double()
        bias = weight @ ln.b.double()
        if linear.bias is not None:
            bias += linear.bias.double()
        linear.bias = nn.Parameter(bias.to(linear.weight.dtype))
        linear.weight.copy_(weight * ln.w.double())
    ln.w.fill_(1.0)
    ln.b.fill_(0.0)
