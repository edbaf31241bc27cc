"""DINOv2 (arXiv:2304.07193): layer scale, SwiGLU, and a head that reads CLS beside the mean of the patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .family import Architecture, Family, ReadConfig, Weights, with_biases
from .vit import CLASSIFIER, CONFIG, SWITCHES, WEIGHTS

if TYPE_CHECKING:
    from mechvit.models.config import HookedViTConfig


def _d_mlp(c: Any) -> int:
    hidden = int(c.hidden_size * c.mlp_ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if c.use_swiglu_ffn else hidden


DINOV2_CONFIG: ReadConfig = {
    **CONFIG,
    "d_mlp": _d_mlp,
    "act": lambda c: "silu" if c.use_swiglu_ffn else c.hidden_act,
    "gated_mlp": lambda c: c.use_swiglu_ffn,
    "dropout": lambda c: max(c.hidden_dropout_prob, c.attention_probs_dropout_prob, c.drop_path_rate),
    "layer_scale": lambda c: True,
}


def mlp_weight(layer: str, plain: str, gated: str, kind: str) -> Callable[[HookedViTConfig], str]:
    """Return the name mapping of an MLP weight, which differs for gated MLPs."""

    def name(cfg: HookedViTConfig) -> str:
        return f"{layer}.mlp.{gated if cfg.gated_mlp else plain}.{kind}"

    return name


def block_weights(layer: str, fc1: str, fc2: str) -> Weights:
    """Return the weight table of a DINOv2 or DINOv3 block, which differ in two names."""
    linears = {f"blocks.{{l}}.attn.{ours}": f"{layer}.attention.{ours}_proj" for ours in "qkvo"}
    norms = {"blocks.{l}.ln1": f"{layer}.norm1", "blocks.{l}.ln2": f"{layer}.norm2"}
    mlp = {
        f"blocks.{{l}}.mlp.{ours}.{kind}": mlp_weight(layer, plain, gated, kind)
        for ours, plain, gated in (("gate", "", "gate_proj"), ("fc1", fc1, "up_proj"), ("fc2", fc2, "down_proj"))
        for kind in ("weight", "bias")
    }
    return {
        **with_biases({**linears, **norms}),
        "blocks.{l}.attn.scale": f"{layer}.layer_scale1.lambda1",
        **mlp,
        "blocks.{l}.mlp.scale": f"{layer}.layer_scale2.lambda1",
    }


DINOV2_WEIGHTS: Weights = {
    **{name: place for name, place in WEIGHTS.items() if not name.startswith("blocks.")},
    **block_weights("encoder.layer.{l}", "fc1", "fc2"),
}

DINOV2 = Family(
    name="dinov2",
    model_types=("dinov2",),
    config={**DINOV2_CONFIG, "interpolation": lambda c: "dinov2"},
    weights=DINOV2_WEIGHTS,
    carried=("embeddings.mask_token",),
    switches=SWITCHES,
    any_size=True,
    architectures={
        "Dinov2ForImageClassification": Architecture(
            prefix="dinov2.", weights=CLASSIFIER, config={"pooling": lambda c: "cls+mean"}, classifier=True
        ),
        "Dinov2Model": Architecture(),
    },
)
