"""ViT (arXiv:2010.11929), and the weight table that its descendants share."""

from __future__ import annotations

from .family import Architecture, Family, ReadConfig, Weights

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

ATTENTION: Weights = {
    "blocks.{l}.attn.q.weight": "layers.{l}.attention.q_proj.weight",
    "blocks.{l}.attn.q.bias": "layers.{l}.attention.q_proj.bias",
    "blocks.{l}.attn.k.weight": "layers.{l}.attention.k_proj.weight",
    "blocks.{l}.attn.k.bias": "layers.{l}.attention.k_proj.bias",
    "blocks.{l}.attn.v.weight": "layers.{l}.attention.v_proj.weight",
    "blocks.{l}.attn.v.bias": "layers.{l}.attention.v_proj.bias",
    "blocks.{l}.attn.o.weight": "layers.{l}.attention.o_proj.weight",
    "blocks.{l}.attn.o.bias": "layers.{l}.attention.o_proj.bias",
}

WEIGHTS: Weights = {
    "embed.cls_token": "embeddings.cls_token",
    "embed.positions": "embeddings.position_embeddings",
    "embed.patch.weight": "embeddings.patch_embeddings.projection.weight",
    "embed.patch.bias": "embeddings.patch_embeddings.projection.bias",
    "blocks.{l}.ln1.w": "layers.{l}.layernorm_before.weight",
    "blocks.{l}.ln1.b": "layers.{l}.layernorm_before.bias",
    **ATTENTION,
    "blocks.{l}.ln2.w": "layers.{l}.layernorm_after.weight",
    "blocks.{l}.ln2.b": "layers.{l}.layernorm_after.bias",
    "blocks.{l}.mlp.fc1.weight": "layers.{l}.mlp.fc1.weight",
    "blocks.{l}.mlp.fc1.bias": "layers.{l}.mlp.fc1.bias",
    "blocks.{l}.mlp.fc2.weight": "layers.{l}.mlp.fc2.weight",
    "blocks.{l}.mlp.fc2.bias": "layers.{l}.mlp.fc2.bias",
    "ln_final.w": "layernorm.weight",
    "ln_final.b": "layernorm.bias",
}

CLASSIFIER: Weights = {"head.weight": "classifier.weight", "head.bias": "classifier.bias"}

DENSE_POOLER = Architecture(
    weights={"pooler.dense.weight": "pooler.dense.weight", "pooler.dense.bias": "pooler.dense.bias"},
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
