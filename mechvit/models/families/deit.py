"""DeiT (arXiv:2012.12877): a ViT with a distillation token and a second classifier that reads it."""

from __future__ import annotations

from .family import Architecture, Family, with_biases
from .vit import CLASSIFIER, CONFIG, DENSE_POOLER, SWITCHES, WEIGHTS

DEIT = Family(
    name="deit",
    model_types=("deit",),
    config={**CONFIG, "distillation_token": lambda c: True},
    weights={**WEIGHTS, "embed.distillation_token": "embeddings.distillation_token"},
    carried=("embeddings.mask_token",),
    switches=SWITCHES,
    architectures={
        "DeiTForImageClassification": Architecture(prefix="deit.", weights=CLASSIFIER, classifier=True),
        "DeiTForImageClassificationWithTeacher": Architecture(
            prefix="deit.",
            weights=with_biases({"head.cls": "cls_classifier", "head.distillation": "distillation_classifier"}),
            config={"pooling": lambda c: "cls+distillation"},
            classifier=True,
        ),
        "DeiTForMaskedImageModeling": Architecture(prefix="deit.", carried=("decoder.",)),
        "DeiTModel": DENSE_POOLER,
    },
)
