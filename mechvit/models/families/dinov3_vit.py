"""DINOv3 ViT (arXiv:2508.10104): rotary positions, registers, layer scale; Hugging Face has no classifier for it."""

from __future__ import annotations

from .dinov2 import block_weights
from .family import Architecture, Family, with_biases
from .vit import CONFIG

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
        **with_biases({"embed.patch": "embeddings.patch_embeddings", "ln_final": "norm"}),
        **block_weights("model.layer.{l}", "up_proj", "down_proj"),
    },
    carried=("embeddings.mask_token", "embeddings.register_tokens"),
    any_size=True,
    switches={
        "q_bias": "query_bias",
        "k_bias": "key_bias",
        "v_bias": "value_bias",
        "o_bias": "proj_bias",
        "mlp_bias": "mlp_bias",
    },
    architectures={"DINOv3ViTModel": Architecture()},
)
