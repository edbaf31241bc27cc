"""BEiT (arXiv:2106.08254): relative position bias, layer scale, and a LayerNorm on the mean of the patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .family import Architecture, Family, ReadConfig
from .vit import CLASSIFIER, CONFIG, WEIGHTS

if TYPE_CHECKING:
    from mechvit.models.config import HookedViTConfig

BEIT_CONFIG: ReadConfig = {
    **{name: read for name, read in CONFIG.items() if name not in ("q_bias", "v_bias")},
    "k_bias": lambda c: False,
    "dropout": lambda c: max(c.hidden_dropout_prob, c.attention_probs_dropout_prob, c.drop_path_rate),
    "positions": lambda c: "learned" if c.use_absolute_position_embeddings else "none",
    "relative_position_bias": lambda c: c.use_relative_position_bias,
    "shared_relative_position_bias": lambda c: c.use_shared_relative_position_bias,
    "layer_scale": lambda c: c.layer_scale_init_value > 0,
    "pooling": lambda c: "mean" if c.use_mean_pooling else "cls",
    "final_norm": lambda c: "none" if c.use_mean_pooling else "tokens",
}

BEIT_CLASSIFIER_CONFIG: ReadConfig = {"final_norm": lambda c: "pooled" if c.use_mean_pooling else "tokens"}
BEIT_POOLER_CONFIG: ReadConfig = {"pooler": lambda c: "norm" if c.use_mean_pooling else "none"}


def final_norm(kind: str) -> Callable[[HookedViTConfig], str]:
    """Return the name mapping of `ln_final`, which lies in the pooler where it comes after the pooling."""

    def name(cfg: HookedViTConfig) -> str:
        return f"{'pooler.' if cfg.final_norm == 'pooled' else ''}layernorm.{kind}"

    return name


BEIT = Family(
    name="beit",
    model_types=("beit",),
    config=BEIT_CONFIG,
    weights={
        **WEIGHTS,
        "relative.table": "shared_position_bias.relative_position_bias_table",
        "blocks.{l}.attn.relative.table": "layers.{l}.relative_position_bias.relative_position_bias_table",
        "blocks.{l}.attn.scale": "layers.{l}.lambda_1",
        "blocks.{l}.mlp.scale": "layers.{l}.lambda_2",
        "ln_final.w": final_norm("weight"),
        "ln_final.b": final_norm("bias"),
    },
    carried=("embeddings.mask_token",),
    architectures={
        "BeitForImageClassification": Architecture(
            prefix="beit.", weights=CLASSIFIER, config=BEIT_CLASSIFIER_CONFIG, classifier=True
        ),
        "BeitModel": Architecture(
            weights={"pooler.w": "pooler.layernorm.weight", "pooler.b": "pooler.layernorm.bias"},
            config=BEIT_POOLER_CONFIG,
            optional_pooler=True,
        ),
    },
)
