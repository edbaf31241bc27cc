"""DINOv2 with registers (arXiv:2309.16588): register tokens without positions between CLS and the patches."""

from __future__ import annotations

from .dinov2 import DINOV2_CONFIG, DINOV2_WEIGHTS
from .family import Architecture, Family
from .vit import CLASSIFIER, SWITCHES

DINOV2_WITH_REGISTERS = Family(
    name="dinov2_with_registers",
    model_types=("dinov2_with_registers",),
    config={
        **DINOV2_CONFIG,
        "n_registers": lambda c: c.num_register_tokens,
        "interpolation": lambda c: "dinov2_with_registers",
    },
    weights={**DINOV2_WEIGHTS, "embed.register_tokens": "embeddings.register_tokens"},
    carried=("embeddings.mask_token",),
    switches=SWITCHES,
    any_size=True,
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
