"""ViT-MAE (arXiv:2111.06377): the encoder without masking or shuffling of patches."""

from __future__ import annotations

from .family import Architecture, Family
from .vit import CONFIG, SWITCHES, WEIGHTS

VIT_MAE = Family(
    name="vit_mae",
    model_types=("vit_mae",),
    config=CONFIG,
    weights=WEIGHTS,
    switches=SWITCHES,
    architectures={
        "ViTMAEForPreTraining": Architecture(prefix="vit.", carried=("decoder.",)),
        "ViTMAEModel": Architecture(),
    },
)
