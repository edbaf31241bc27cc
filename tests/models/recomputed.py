"""Inputs of every hook point of a HookedViT, in plain einsum from its weights and the other points' outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Calls = dict[str, list[Tensor]]
"""Hook point -> the tensor of each of its calls (ln1 is called for q, k and v with split inputs)."""
Through = Callable[..., Any]
ATTENTION = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")
MLP = ("W_gate", "W_in", "W_out", "b_gate", "b_in", "b_out")
ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
}


def recompute(model: Any, hf_model: Any, pixels: Tensor, left: Calls) -> tuple[Calls, Tensor]:
    """Return the input of each hook point, given the outputs `left` by each, and the model's own output."""
    arrives: Calls = {}

    def through(name: str, *calls: Tensor) -> Any:
        """Pass a hook point: what left it goes on."""
        arrives[name] = list(calls)
        return left[name] if len(calls) > 1 else left[name][0]

    cfg, act = model.cfg, ACTIVATIONS[model.cfg.act]
    stream, n_patches = _embed(model, pixels, through)
    rotary = hf_model.rope_embeddings(pixels) if cfg.positions == "rotary" else None
    names = [*ATTENTION, *MLP]
    weights = {name: getattr(model, name) for name in names if getattr(model, name) is not None}
    for layer in range(cfg.n_layers):
        own = {name: stacked[layer] for name, stacked in weights.items()}
        tables = [t for t in (model.blocks[layer].attn.relative, model.relative) if t is not None]
        bias = sum(_relative_bias(t.table, math.isqrt(n_patches)) for t in tables)
        stream = _block(f"blocks.{layer}.", model.blocks[layer], act, own, stream, rotary, bias, left, through)
    if cfg.final_norm == "tokens":
        (stream,) = _layer_norm("ln_final", model.ln_final, [stream], through)
    if "hook_logits" not in left:
        return arrives, stream
    patches = stream[:, -n_patches:]
    if cfg.pooling == "attention":
        pooled = _pool_by_attention(model.pooler, act, stream, through)
    else:
        parts = {"cls": stream[:, 0], "distillation": stream[:, 1], "mean": patches.sum(1) / n_patches}
        pooled = torch.cat([parts[part] for part in cfg.pooling.split("+")], dim=-1)
    if cfg.final_norm == "pooled":
        (normalized,) = _layer_norm("ln_final", model.ln_final, [pooled[:, None]], through)
        pooled = normalized[:, 0]
    pooled = through("hook_head_input", pooled)
    logits = torch.einsum("bd,dc->bc", pooled, model.W_U)
    if "head.hook_scale" in left:
        projection = model.head.projection
        image = pooled if projection is None else torch.einsum("bd,pd->bp", pooled, projection.weight)
        logits = logits / through("head.hook_scale", image.pow(2).sum(-1, keepdim=True).sqrt())
    return arrives, through("hook_logits", logits + model.b_U)


def _embed(model: Any, pixels: Tensor, through: Through) -> tuple[Tensor, int]:
    own, size = model.embed, model.cfg.patch_size
    patches = pixels.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # [batch, channel, row, y, column, x]
    embed = torch.einsum("bcrykx,mcyx->brkm", patches, own.patch.weight).flatten(1, 2)
    n_patches = embed.shape[1]
    embed = embed if own.patch.bias is None else embed + own.patch.bias
    special = [t for t in (own.cls_token, own.distillation_token, own.register_tokens) if t is not None]
    embed = torch.cat([*(token.repeat(len(pixels), 1, 1) for token in special), embed], dim=1)
    if own.positions is None:
        return through("hook_embed", embed), n_patches
    table = own.positions.float().double() if model.cfg.family == "siglip2" else own.positions
    positions = torch.zeros_like(embed)
    positions[:, -n_patches:] = table[:, -n_patches:]
    n_others = table.shape[1] - n_patches  # registers, which come after them, have none
    positions[:, :n_others] = table[:, :n_others]
    if model.ln_pre is not None:
        ln = model.ln_pre
        both = embed + positions
        scale = through("ln_pre.hook_scale", (both.var(-1, correction=0, keepdim=True) + ln.eps).sqrt())
        embed = (embed - embed.mean(-1, keepdim=True)) / scale * ln.w
        positions = (positions - positions.mean(-1, keepdim=True)) / scale * ln.w + ln.b
    return through("hook_embed", embed) + through("hook_pos_embed", positions), n_patches


def _block(
    at: str,
    block: Any,
    act: Callable,
    own: dict[str, Tensor],
    stream: Tensor,
    rotary: Any,
    bias: Any,
    left: Calls,
    through: Through,
) -> Tensor:
    pre = through(at + "hook_resid_pre", stream)
    if at + "hook_q_input" in left:
        per_head = pre[:, :, None].repeat(1, 1, block.attn.n_heads, 1)
        inputs = [through(f"{at}hook_{name}_input", per_head) for name in "qkv"]
    else:
        inputs = [pre]
    normalized = _layer_norm(at + "ln1", block.ln1, inputs, through)
    result = _attend(at + "attn.", own, normalized * (3 // len(normalized)), rotary, bias, through)
    if at + "attn.hook_result" in left:
        result = through(at + "attn.hook_result", result)
    mid = through(at + "hook_resid_mid", pre + through(at + "hook_attn_out", result.sum(2) + own["b_O"]))
    mlp_in = through(at + "hook_mlp_in", mid) if at + "hook_mlp_in" in left else mid
    (x,) = _layer_norm(at + "ln2", block.ln2, [mlp_in], through)
    mlp_out = through(at + "hook_mlp_out", _mlp(at + "mlp.", block.mlp, act, own, x, through))
    return through(at + "hook_resid_post", mid + mlp_out)


def _layer_norm(at: str, ln: Any, inputs: list[Tensor], through: Through) -> list[Tensor]:
    scales = through(f"{at}.hook_scale", *((x.var(-1, correction=0, keepdim=True) + ln.eps).sqrt() for x in inputs))
    scales = scales if isinstance(scales, list) else [scales]
    pairs = zip(inputs, scales, strict=True)
    found = through(f"{at}.hook_normalized", *((x - x.mean(-1, keepdim=True)) / s * ln.w + ln.b for x, s in pairs))
    return found if isinstance(found, list) else [found]


def _attend(at: str, own: dict[str, Tensor], inputs: list[Tensor], rotary: Any, bias: Any, through: Through) -> Tensor:
    """Return each head's own output [batch, query, head, d_model]; each input is for all heads or one per head."""
    projected = []
    for name, x in zip("QKV", inputs, strict=True):
        equation = "bthm,hmd->bthd" if x.dim() == 4 else "btm,hmd->bthd"
        value = torch.einsum(equation, x, own[f"W_{name}"]) + own[f"b_{name}"]
        projected.append(through(at + f"hook_{name.lower()}", value))
    q, k, v = projected
    if rotary is not None:
        q, k = through(at + "hook_rot_q", _rotate(q, *rotary)), through(at + "hook_rot_k", _rotate(k, *rotary))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1]) + bias
    scores = through(at + "hook_attn_scores", scores)
    pattern = through(at + "hook_pattern", (scores - scores.logsumexp(-1, keepdim=True)).exp())
    z = through(at + "hook_z", torch.einsum("bhqk,bkhd->bqhd", pattern, v))
    return torch.einsum("bqhd,hdm->bqhm", z, own["W_O"])


def _mlp(at: str, mlp: Any, act: Callable, own: dict[str, Tensor], x: Tensor, through: Through) -> Tensor:
    linear = torch.einsum("btm,md->btd", x, own["W_in"]) + own["b_in"]
    if "W_gate" in own:
        gate = torch.einsum("btm,md->btd", x, own["W_gate"]) + own["b_gate"]
        post = act(through(at + "hook_pre", gate)) * through(at + "hook_pre_linear", linear)
    else:
        post = act(through(at + "hook_pre", linear))
    return torch.einsum("btd,dm->btm", through(at + "hook_post", post), own["W_out"]) + own["b_out"]


def _pool_by_attention(pooler: Any, act: Callable, tokens: Tensor, through: Through) -> Tensor:
    own = {name: getattr(pooler.attn, name) for name in ATTENTION}
    own |= {name: getattr(pooler.mlp, name) for name in MLP if getattr(pooler.mlp, name) is not None}
    probe = pooler.probe.repeat(len(tokens), 1, 1)
    result = _attend("pooler.attn.", own, [probe, tokens, tokens], None, 0, through)
    mid = through("pooler.hook_attn_out", result.sum(2) + own["b_O"])
    (x,) = _layer_norm("pooler.ln", pooler.ln, [mid], through)
    return (mid + through("pooler.hook_mlp_out", _mlp("pooler.mlp.", pooler.mlp, act, own, x, through)))[:, 0]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the patches by Hugging Face's angles [patch, d_head]: dimensions i and i + d/2 are one complex number."""
    n_patches, half = len(cos), x.shape[-1] // 2
    complex_x = torch.complex(*x[:, -n_patches:].split(half, dim=-1))
    turned = complex_x * torch.complex(cos[:, None, :half], sin[:, None, :half])
    return torch.cat([x[:, :-n_patches], torch.cat([turned.real, turned.imag], dim=-1)], dim=1)


def _relative_bias(table: Tensor, side: int) -> Tensor:
    """BEiT's table as a bias [head, query, key], pair by pair; its last rows are CLS->patch, patch->CLS, CLS->CLS."""
    width, last = 2 * side - 1, len(table)
    places = [divmod(i, side) for i in range(side**2)]
    index = [[last - 1, *[last - 3] * side**2]]
    for row, column in places:
        apart = [(row - r + side - 1) * width + column - c + side - 1 for r, c in places]
        index.append([last - 2, *apart])
    return table[torch.tensor(index)].permute(2, 0, 1)
