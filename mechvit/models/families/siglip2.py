"""SigLIP 2 with native resolution (arXiv:2502.14786); its fixed-resolution checkpoints are stored as SigLIP.

Hugging Face takes flattened patches with a mask; here an ordinary image is divided into patches.
"""

from __future__ import annotations

from .clip import TOWER
from .family import Family, Stored
from .siglip import CLASSIFICATION, CONFIG, POOLER, TWO_TOWERS, VISION

SIGLIP2 = Family(
    name="siglip2",
    model_types=("siglip2", "siglip2_vision_model"),
    config={
        **CONFIG,
        "image_size": lambda c: int(c.num_patches**0.5) * c.patch_size,
        "interpolation": lambda c: "siglip2",
    },
    weights={
        **TOWER,
        **POOLER,
        "embed.patch.weight": Stored("embeddings.patch_embedding.weight", channels_last=True),
    },
    architectures={
        "Siglip2ForImageClassification": CLASSIFICATION,
        "Siglip2Model": TWO_TOWERS,
        "Siglip2VisionModel": VISION,
    },
)
