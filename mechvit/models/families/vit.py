"""ViT (arXiv:2010.11929), and the weight table that its descendants share."""

from __future__ import annotations

from .family import Architecture, Family, ReadConfig, Weights, with_biases

CONFIG: ReadConfig = {
    "n_layers": lambda c: c.num_hidden_layers,
    "n_heads": lambda c: c.num_attention_heads,
    "d_model": lambda c: c.hidden_size,
    "d_head": lambda c: getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads,
    "d_mlp": lambda c: c.intermediate_size,
    "act": lambda c: c.hidden_act,
    "eps": lambda c: c.layer_norm_eps,
    "image_size": lambda c: c.image_size,
    "patch_size": lambda c: c.patch_size,
    "n_channels": lambda c: c.num_channels,
    "q_bias": lambda c: c.qkv_bias,
    "k_bias": lambda c: c.qkv_bias,
    "v_bias": lambda c: c.qkv_bias,
    "dropout": lambda c: max(c.hidden_dropout_prob, c.attention_probs_dropout_prob),
}

SWITCHES = {"q_bias": "qkv_bias", "k_bias": "qkv_bias", "v_bias": "qkv_bias"}

WEIGHTS: Weights = {
    "embed.cls_token": "embeddings.cls_token",
    "embed.positions": "embeddings.position_embeddings",
    **with_biases(
        {
            "embed.patch": "embeddings.patch_embeddings.projection",
            "blocks.{l}.ln1": "layers.{l}.layernorm_before",
            "blocks.{l}.attn.q": "layers.{l}.attention.q_proj",
            "blocks.{l}.attn.k": "layers.{l}.attention.k_proj",
            "blocks.{l}.attn.v": "layers.{l}.attention.v_proj",
            "blocks.{l}.attn.o": "layers.{l}.attention.o_proj",
            "blocks.{l}.ln2": "layers.{l}.layernorm_after",
            "blocks.{l}.mlp.fc1": "layers.{l}.mlp.fc1",
            "blocks.{l}.mlp.fc2": "layers.{l}.mlp.fc2",
            "ln_final": "layernorm",
        }
    ),
}

CLASSIFIER: Weights = with_biases({"head": "classifier"})

DENSE_POOLER = Architecture(
    weights=with_biases({"pooler.dense": "pooler.dense"}),
    config={
        "pooler": lambda c: "dense",
        "pooler_size": lambda c: c.pooler_output_size or c.hidden_size,
        "pooler_act": lambda c: c.pooler_act,
    },
    optional_pooler=True,
)

VIT = Family(
    name="vit",
    model_types=("vit",),
    config=CONFIG,
    weights=WEIGHTS,
    carried=("embeddings.mask_token",),
    switches=SWITCHES,
    architectures={
        "ViTForImageClassification": Architecture(prefix="vit.", weights=CLASSIFIER, classifier=True),
        "ViTForMaskedImageModeling": Architecture(prefix="vit.", carried=("decoder.",)),
        "ViTModel": DENSE_POOLER,
    },
)
