"""Data2Vec-vision (arXiv:2202.03555): BEiT with other weight names."""

from __future__ import annotations

from .beit import BEIT_CLASSIFIER_CONFIG, BEIT_CONFIG, BEIT_POOLER_CONFIG, final_norm
from .family import Architecture, Family, with_biases
from .vit import CLASSIFIER, WEIGHTS

DATA2VEC_VISION = Family(
    name="data2vec_vision",
    model_types=("data2vec-vision",),
    config=BEIT_CONFIG,
    weights={
        **{name: place for name, place in WEIGHTS.items() if name.startswith("embed.")},
        "relative.table": "encoder.relative_position_bias.relative_position_bias_table",
        **with_biases(
            {
                "blocks.{l}.ln1": "encoder.layer.{l}.layernorm_before",
                "blocks.{l}.attn.q": "encoder.layer.{l}.attention.attention.query",
                "blocks.{l}.attn.k": "encoder.layer.{l}.attention.attention.key",  # a bias only in processed models
                "blocks.{l}.attn.v": "encoder.layer.{l}.attention.attention.value",
                "blocks.{l}.attn.o": "encoder.layer.{l}.attention.output.dense",
                "blocks.{l}.ln2": "encoder.layer.{l}.layernorm_after",
                "blocks.{l}.mlp.fc1": "encoder.layer.{l}.intermediate.dense",
                "blocks.{l}.mlp.fc2": "encoder.layer.{l}.output.dense",
            }
        ),
        "blocks.{l}.attn.relative.table": (
            "encoder.layer.{l}.attention.attention.relative_position_bias.relative_position_bias_table"
        ),
        "blocks.{l}.attn.scale": "encoder.layer.{l}.lambda_1",
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
