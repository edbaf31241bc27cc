"""DINOv3 ViT (arXiv:2508.10104): rotary positions, registers, layer scale; Hugging Face has no classifier for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .family import Architecture, Family
from .vit import CONFIG

if TYPE_CHECKING:
    from ..config import HookedViTConfig


def _mlp(gated: str, plain: str, kind: str) -> Callable[[HookedViTConfig], str]:
    def name(cfg: HookedViTConfig) -> str:
        return f"model.layer.{{l}}.mlp.{gated if cfg.gated_mlp else plain}.{kind}"

    return name


DINOV3_VIT = Family(
    name="dinov3_vit",
    model_types=("dinov3_vit",),
    config={
        **CONFIG,
        "d_head": lambda c: c.hidden_size // c.num_attention_heads,
        "gated_mlp": lambda c: c.use_gated_mlp,
        "dropout": lambda c: max(c.attention_dropout, c.drop_path_rate),
        "layer_scale": lambda c: True,
        "n_registers": lambda c: c.num_register_tokens,
        "positions": lambda c: "rotary",
        "rope_theta": lambda c: c.rope_theta,
        "q_bias": lambda c: c.query_bias,
        "k_bias": lambda c: c.key_bias,
        "v_bias": lambda c: c.value_bias,
        "o_bias": lambda c: c.proj_bias,
        "mlp_bias": lambda c: c.mlp_bias,
    },
    weights={
        "embed.cls_token": "embeddings.cls_token",
        "embed.register_tokens": "embeddings.register_tokens",
        "embed.patch.weight": "embeddings.patch_embeddings.weight",
        "embed.patch.bias": "embeddings.patch_embeddings.bias",
        "blocks.{l}.ln1.w": "model.layer.{l}.norm1.weight",
        "blocks.{l}.ln1.b": "model.layer.{l}.norm1.bias",
        **{
            f"blocks.{{l}}.attn.{ours}.{kind}": f"model.layer.{{l}}.attention.{ours}_proj.{kind}"
            for ours in "qkvo"
            for kind in ("weight", "bias")
        },
        "blocks.{l}.attn.scale": "model.layer.{l}.layer_scale1.lambda1",
        "blocks.{l}.ln2.w": "model.layer.{l}.norm2.weight",
        "blocks.{l}.ln2.b": "model.layer.{l}.norm2.bias",
        **{
            f"blocks.{{l}}.mlp.{ours}.{kind}": _mlp(gated, plain, kind)
            for ours, gated, plain in (
                ("gate", "gate_proj", ""),
                ("fc1", "up_proj", "up_proj"),
                ("fc2", "down_proj", "down_proj"),
            )
            for kind in ("weight", "bias")
        },
        "blocks.{l}.mlp.scale": "model.layer.{l}.layer_scale2.lambda1",
        "ln_final.w": "norm.weight",
        "ln_final.b": "norm.bias",
    },
    carried=("embeddings.mask_token", "embeddings.register_tokens"),
    switches={
        "q_bias": "query_bias",
        "k_bias": "key_bias",
        "v_bias": "value_bias",
        "o_bias": "proj_bias",
        "mlp_bias": "mlp_bias",
    },
    architectures={"DINOv3ViTModel": Architecture()},
)
