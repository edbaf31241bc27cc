"""SigLIP (arXiv:2303.15343): no CLS; a learned query pools by attention.

`SiglipForImageClassification` reads the mean of the patches, and does not use the attention-pooling head. `SiglipModel`
compares the attention-pooled image with text embeddings, and is a bare encoder without them.
"""

from __future__ import annotations

from typing import Any

from .clip import TOWER, TOWER_CONFIG
from .family import Architecture, Family, ReadConfig, Stored, Weights, with_biases
from .vit import CLASSIFIER


def _packed(kind: str) -> Weights:
    name = f"head.attention.in_proj_{kind}"
    return {f"pooler.attn.{ours}.{kind}": Stored(name, third=third) for third, ours in enumerate("qkv")}


POOLER: Weights = {
    "pooler.probe": "head.probe",
    **_packed("weight"),
    **_packed("bias"),
    **with_biases(
        {
            "pooler.attn.o": "head.attention.out_proj",
            "pooler.ln": "head.layernorm",
            "pooler.mlp.fc1": "head.mlp.fc1",
            "pooler.mlp.fc2": "head.mlp.fc2",
        }
    ),
}


def _pooler(c: Any) -> str:
    vision = getattr(c, "vision_config", c)
    return "attention" if vision.vision_use_head else "none"


CONFIG: ReadConfig = {
    **TOWER_CONFIG,
    "cls_token": lambda c: False,
    "pooling": lambda c: "mean",
}

CLASSIFICATION = Architecture(
    prefix="vision_model.", weights=CLASSIFIER, carried=("vision_model.head.",), classifier=True
)
TWO_TOWERS = Architecture(
    prefix="vision_model.",
    weights={"head.logit_scale": "logit_scale", "head.logit_bias": "logit_bias"},
    config={"pooler": _pooler},
    carried=("text_model.", "logit_scale", "logit_bias"),
    zero_shot={"pooling": lambda c: "attention", "logit_bias": lambda c: True},
)
VISION = Architecture(config={"pooler": _pooler})

SIGLIP = Family(
    name="siglip",
    model_types=("siglip", "siglip_vision_model"),
    config=CONFIG,
    weights={**TOWER, **POOLER},
    architectures={
        "SiglipForImageClassification": CLASSIFICATION,
        "SiglipModel": TWO_TOWERS,
        "SiglipVisionModel": VISION,
    },
)
