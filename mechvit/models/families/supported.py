"""The supported families, and the error for all others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .beit import BEIT
from .clip import CLIP
from .data2vec_vision import DATA2VEC_VISION
from .deit import DEIT
from .dinov2 import DINOV2
from .dinov2_with_registers import DINOV2_WITH_REGISTERS
from .dinov3_vit import DINOV3_VIT
from .family import Family
from .ijepa import IJEPA
from .siglip import SIGLIP
from .siglip2 import SIGLIP2
from .vit import VIT
from .vit_mae import VIT_MAE
from .vit_msn import VIT_MSN

_ALL = (
    *(VIT, VIT_MSN, VIT_MAE, DEIT, BEIT, DATA2VEC_VISION, DINOV2, DINOV2_WITH_REGISTERS),
    *(DINOV3_VIT, IJEPA, CLIP, SIGLIP, SIGLIP2),
)
FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}


def find_family(model_type: str | None, architectures: Iterable[str], where: str) -> tuple[Family, str]:
    """Return the family of a checkpoint and the name of its supported class.

    Args:
        model_type: `config.model_type`; None where it is missing.
        architectures: the checkpoint's class names, the most specific first.
        where: the checkpoint, for the error.

    Raises:
        ValueError: the checkpoint is of another kind; the message names it and lists the supported classes.
    """
    names = list(architectures)
    for family in FAMILIES.values():
        if model_type in family.model_types:
            for name in names:
                if name in family.architectures:
                    return family, name
    supported = ", ".join(name for family in FAMILIES.values() for name in family.architectures)
    kind = names[0] if names else "a config that names no architecture"
    raise ValueError(
        f"{where} must hold one of the supported kinds of vision transformer ({supported}); it holds {kind} "
        f"(model_type {model_type!r}). Pass a checkpoint of a supported kind."
    )


def input_size(hf_config: Any) -> Any:
    """Read the side of a checkpoint's images, in pixels, from its config, wherever the family keeps it."""
    vision = getattr(hf_config, "vision_config", hf_config)
    for family in FAMILIES.values():
        if hf_config.model_type in family.model_types:
            return family.config["image_size"](vision)
    return getattr(vision, "image_size", None)
