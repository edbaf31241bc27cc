"""CLIP's vision tower (arXiv:2103.00020): a LayerNorm before the first block, quick-GELU, no bias on the patches.

`CLIPForImageClassification` reads the mean of the patches without any final LayerNorm. `CLIPModel` compares the
projected image with text embeddings, and is a bare encoder without them.
"""

from __future__ import annotations

from .family import Architecture, Family, ReadConfig, Weights, with_biases
from .vit import CLASSIFIER, CONFIG

TOWER_CONFIG: ReadConfig = {
    **{name: read for name, read in CONFIG.items() if name not in ("q_bias", "k_bias", "v_bias")},
    "d_head": lambda c: c.hidden_size // c.num_attention_heads,
    "dropout": lambda c: c.attention_dropout,
}

TOWER: Weights = {
    "embed.positions": "embeddings.position_embedding.weight",
    **with_biases(
        {
            "embed.patch": "embeddings.patch_embedding",
            "blocks.{l}.ln1": "encoder.layers.{l}.layer_norm1",
            "blocks.{l}.attn.q": "encoder.layers.{l}.self_attn.q_proj",
            "blocks.{l}.attn.k": "encoder.layers.{l}.self_attn.k_proj",
            "blocks.{l}.attn.v": "encoder.layers.{l}.self_attn.v_proj",
            "blocks.{l}.attn.o": "encoder.layers.{l}.self_attn.out_proj",
            "blocks.{l}.ln2": "encoder.layers.{l}.layer_norm2",
            "blocks.{l}.mlp.fc1": "encoder.layers.{l}.mlp.fc1",
            "blocks.{l}.mlp.fc2": "encoder.layers.{l}.mlp.fc2",
            "ln_final": "post_layernorm",
        }
    ),
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
        **with_biases({"ln_pre": "pre_layrnorm"}),
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
