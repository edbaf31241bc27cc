"""CLIP's vision tower (arXiv:2103.00020): a LayerNorm before the first block, quick-GELU, no bias on the patches.

`CLIPForImageClassification` reads the mean of the patches without any final LayerNorm. `CLIPModel` compares the
projected image with text embeddings, and is a bare encoder without them.
"""

from __future__ import annotations

from .family import Architecture, Family, ReadConfig, Weights
from .vit import CLASSIFIER, CONFIG

TOWER_CONFIG: ReadConfig = {
    **{name: read for name, read in CONFIG.items() if name not in ("q_bias", "k_bias", "v_bias")},
    "d_head": lambda c: c.hidden_size // c.num_attention_heads,
    "dropout": lambda c: c.attention_dropout,
}

TOWER: Weights = {
    "embed.positions": "embeddings.position_embedding.weight",
    "embed.patch.weight": "embeddings.patch_embedding.weight",
    "embed.patch.bias": "embeddings.patch_embedding.bias",
    "blocks.{l}.ln1.w": "encoder.layers.{l}.layer_norm1.weight",
    "blocks.{l}.ln1.b": "encoder.layers.{l}.layer_norm1.bias",
    "blocks.{l}.attn.q.weight": "encoder.layers.{l}.self_attn.q_proj.weight",
    "blocks.{l}.attn.q.bias": "encoder.layers.{l}.self_attn.q_proj.bias",
    "blocks.{l}.attn.k.weight": "encoder.layers.{l}.self_attn.k_proj.weight",
    "blocks.{l}.attn.k.bias": "encoder.layers.{l}.self_attn.k_proj.bias",
    "blocks.{l}.attn.v.weight": "encoder.layers.{l}.self_attn.v_proj.weight",
    "blocks.{l}.attn.v.bias": "encoder.layers.{l}.self_attn.v_proj.bias",
    "blocks.{l}.attn.o.weight": "encoder.layers.{l}.self_attn.out_proj.weight",
    "blocks.{l}.attn.o.bias": "encoder.layers.{l}.self_attn.out_proj.bias",
    "blocks.{l}.ln2.w": "encoder.layers.{l}.layer_norm2.weight",
    "blocks.{l}.ln2.b": "encoder.layers.{l}.layer_norm2.bias",
    "blocks.{l}.mlp.fc1.weight": "encoder.layers.{l}.mlp.fc1.weight",
    "blocks.{l}.mlp.fc1.bias": "encoder.layers.{l}.mlp.fc1.bias",
    "blocks.{l}.mlp.fc2.weight": "encoder.layers.{l}.mlp.fc2.weight",
    "blocks.{l}.mlp.fc2.bias": "encoder.layers.{l}.mlp.fc2.bias",
    "ln_final.w": "post_layernorm.weight",
    "ln_final.b": "post_layernorm.bias",
}

CLIP = Family(
    name="clip",
    model_types=("clip", "clip_vision_model"),
    config={
        **TOWER_CONFIG,
        "patch_bias": lambda c: False,
        "ln_pre": lambda c: True,
        "final_norm": lambda c: "none",
    },
    weights={
        **TOWER,
        "embed.cls_token": "embeddings.class_embedding",
        "ln_pre.w": "pre_layrnorm.weight",
        "ln_pre.b": "pre_layrnorm.bias",
        "pooler.w": "post_layernorm.weight",
        "pooler.b": "post_layernorm.bias",
    },
    architectures={
        "CLIPForImageClassification": Architecture(
            prefix="vision_model.",
            weights=CLASSIFIER,
            config={"pooling": lambda c: "mean"},
            carried=("vision_model.post_layernorm.",),
            classifier=True,
        ),
        "CLIPModel": Architecture(
            prefix="vision_model.",
            weights={
                "head.projection.weight": "visual_projection.weight",
                "head.projection.bias": "visual_projection.bias",  # created by processing; the class has none
                "head.logit_scale": "logit_scale",
                "pooler.projection.weight": "visual_projection.weight",
            },
            config={"pooler": lambda c: "projection", "projection_dim": lambda c: c.projection_dim},
            carried=("text_model.", "text_projection.", "logit_scale"),
            zero_shot={"pooler": lambda c: "none", "final_norm": lambda c: "tokens"},
        ),
        "CLIPVisionModel": Architecture(config={"pooler": lambda c: "norm"}),
        "CLIPVisionModelWithProjection": Architecture(
            prefix="vision_model.",
            weights={"pooler.projection.weight": "visual_projection.weight"},
            config={"pooler": lambda c: "projection", "projection_dim": lambda c: c.projection_dim},
        ),
    },
)
