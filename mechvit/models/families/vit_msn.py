"""ViT-MSN (arXiv:2204.07141): a ViT under another name."""

from __future__ import annotations

from .family import Architecture, Family
from .vit import CLASSIFIER, CONFIG, SWITCHES, WEIGHTS

VIT_MSN = Family(
    name="vit_msn",
    model_types=("vit_msn",),
    config=CONFIG,
    weights=WEIGHTS,
    carried=("embeddings.mask_token",),
    switches=SWITCHES,
    architectures={
        "ViTMSNForImageClassification": Architecture(prefix="vit.", weights=CLASSIFIER, classifier=True),
        "ViTMSNModel": Architecture(),
    },
)
