"""DINOv2 (arXiv:2304.07193), with and without registers (arXiv:2309.16588): layer scale, SwiGLU, a CLS + mean head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .family import Architecture, Family, ReadConfig, Weights
from .vit import CLASSIFIER, CONFIG, SWITCHES, WEIGHTS

if TYPE_CHECKING:
    from ..config import HookedViTConfig


def _d_mlp(c: Any) -> int:
    hidden = int(c.hidden_size * c.mlp_ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if c.use_swiglu_ffn else hidden


def _mlp(part: str, plain: str, gated: str, kind: str) -> Callable[[HookedViTConfig], str]:
    def name(cfg: HookedViTConfig) -> str:
        return f"{part}.{gated if cfg.gated_mlp else plain}.{kind}"

    return name


DINOV2_CONFIG: ReadConfig = {
    **CONFIG,
    "d_mlp": _d_mlp,
    "act": lambda c: "silu" if c.use_swiglu_ffn else c.hidden_act,
    "gated_mlp": lambda c: c.use_swiglu_ffn,
    "dropout": lambda c: max(c.hidden_dropout_prob, c.attention_probs_dropout_prob, c.drop_path_rate),
    "layer_scale": lambda c: True,
}

_LAYER = "encoder.layer.{l}"
BLOCK: Weights = {
    "blocks.{l}.ln1.w": f"{_LAYER}.norm1.weight",
    "blocks.{l}.ln1.b": f"{_LAYER}.norm1.bias",
    **{
        f"blocks.{{l}}.attn.{ours}.{kind}": f"{_LAYER}.attention.{ours}_proj.{kind}"
        for ours in "qkvo"
        for kind in ("weight", "bias")
    },
    "blocks.{l}.attn.scale": f"{_LAYER}.layer_scale1.lambda1",
    "blocks.{l}.ln2.w": f"{_LAYER}.norm2.weight",
    "blocks.{l}.ln2.b": f"{_LAYER}.norm2.bias",
    **{
        f"blocks.{{l}}.mlp.{ours}.{kind}": _mlp(f"{_LAYER}.mlp", plain, gated, kind)
        for ours, plain, gated in (("gate", "", "gate_proj"), ("fc1", "fc1", "up_proj"), ("fc2", "fc2", "down_proj"))
        for kind in ("weight", "bias")
    },
    "blocks.{l}.mlp.scale": f"{_LAYER}.layer_scale2.lambda1",
}

DINOV2_WEIGHTS: Weights = {
    **{name: place for name, place in WEIGHTS.items() if not name.startswith("blocks.")},
    **BLOCK,
    "embed.register_tokens": "embeddings.register_tokens",
}

DINOV2 = Family(
    name="dinov2",
    model_types=("dinov2",),
    config={**DINOV2_CONFIG, "interpolation": lambda c: "dinov2"},
    weights=DINOV2_WEIGHTS,
    carried=("embeddings.mask_token",),
    switches=SWITCHES,
    architectures={
        "Dinov2ForImageClassification": Architecture(
            prefix="dinov2.", weights=CLASSIFIER, config={"pooling": lambda c: "cls+mean"}, classifier=True
        ),
        "Dinov2Model": Architecture(),
    },
)

DINOV2_WITH_REGISTERS = Family(
    name="dinov2_with_registers",
    model_types=("dinov2_with_registers",),
    config={
        **DINOV2_CONFIG,
        "n_registers": lambda c: c.num_register_tokens,
        "interpolation": lambda c: "dinov2_with_registers",
    },
    weights=DINOV2_WEIGHTS,
    carried=("embeddings.mask_token",),
    switches=SWITCHES,
    architectures={
        "Dinov2WithRegistersForImageClassification": Architecture(
            prefix="dinov2_with_registers.",
            weights=CLASSIFIER,
            config={"pooling": lambda c: "cls+mean"},
            classifier=True,
        ),
        "Dinov2WithRegistersModel": Architecture(),
    },
)
