"""Data2Vec-vision (arXiv:2202.03555): BEiT with other weight names."""

from __future__ import annotations

from .beit import BEIT_CLASSIFIER_CONFIG, BEIT_CONFIG, BEIT_POOLER_CONFIG, final_norm
from .family import Architecture, Family
from .vit import CLASSIFIER, WEIGHTS

DATA2VEC_VISION = Family(
    name="data2vec_vision",
    model_types=("data2vec-vision",),
    config=BEIT_CONFIG,
    weights={
        **{name: place for name, place in WEIGHTS.items() if name.startswith("embed.")},
        "relative.table": "encoder.relative_position_bias.relative_position_bias_table",
        "blocks.{l}.ln1.w": "encoder.layer.{l}.layernorm_before.weight",
        "blocks.{l}.ln1.b": "encoder.layer.{l}.layernorm_before.bias",
        "blocks.{l}.attn.q.weight": "encoder.layer.{l}.attention.attention.query.weight",
        "blocks.{l}.attn.q.bias": "encoder.layer.{l}.attention.attention.query.bias",
        "blocks.{l}.attn.k.weight": "encoder.layer.{l}.attention.attention.key.weight",
        "blocks.{l}.attn.k.bias": "encoder.layer.{l}.attention.attention.key.bias",  # only in processed models
        "blocks.{l}.attn.v.weight": "encoder.layer.{l}.attention.attention.value.weight",
        "blocks.{l}.attn.v.bias": "encoder.layer.{l}.attention.attention.value.bias",
        "blocks.{l}.attn.relative.table": (
            "encoder.layer.{l}.attention.attention.relative_position_bias.relative_position_bias_table"
        ),
        "blocks.{l}.attn.o.weight": "encoder.layer.{l}.attention.output.dense.weight",
        "blocks.{l}.attn.o.bias": "encoder.layer.{l}.attention.output.dense.bias",
        "blocks.{l}.attn.scale": "encoder.layer.{l}.lambda_1",
        "blocks.{l}.ln2.w": "encoder.layer.{l}.layernorm_after.weight",
        "blocks.{l}.ln2.b": "encoder.layer.{l}.layernorm_after.bias",
        "blocks.{l}.mlp.fc1.weight": "encoder.layer.{l}.intermediate.dense.weight",
        "blocks.{l}.mlp.fc1.bias": "encoder.layer.{l}.intermediate.dense.bias",
        "blocks.{l}.mlp.fc2.weight": "encoder.layer.{l}.output.dense.weight",
        "blocks.{l}.mlp.fc2.bias": "encoder.layer.{l}.output.dense.bias",
        "blocks.{l}.mlp.scale": "encoder.layer.{l}.lambda_2",
        "ln_final.w": final_norm("weight"),
        "ln_final.b": final_norm("bias"),
    },
    carried=("embeddings.mask_token",),
    architectures={
        "Data2VecVisionForImageClassification": Architecture(
            prefix="data2vec_vision.", weights=CLASSIFIER, config=BEIT_CLASSIFIER_CONFIG, classifier=True
        ),
        "Data2VecVisionModel": Architecture(
            weights={"pooler.w": "pooler.layernorm.weight", "pooler.b": "pooler.layernorm.bias"},
            config=BEIT_POOLER_CONFIG,
            optional_pooler=True,
        ),
    },
)
