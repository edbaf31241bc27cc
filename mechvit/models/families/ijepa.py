"""I-JEPA (arXiv:2301.08243): a ViT without CLS whose classifier reads the mean of all patches."""

from __future__ import annotations

from .family import Architecture, Family
from .vit import CLASSIFIER, CONFIG, DENSE_POOLER, SWITCHES, WEIGHTS

IJEPA = Family(
    name="ijepa",
    model_types=("ijepa",),
    config={**CONFIG, "cls_token": lambda c: False, "pooling": lambda c: "mean"},
    weights=WEIGHTS,
    carried=("embeddings.mask_token",),
    switches=SWITCHES,
    architectures={
        "IJepaForImageClassification": Architecture(prefix="ijepa.", weights=CLASSIFIER, classifier=True),
        "IJepaModel": DENSE_POOLER,
    },
)
