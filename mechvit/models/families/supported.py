"""The families that are supported, and the error for all others."""

from __future__ import annotations

from collections.abc import Iterable

from .family import Family
from .vit import VIT

FAMILIES: dict[str, Family] = {family.model_type: family for family in (VIT,)}


def find_family(model_type: str | None, architectures: Iterable[str], where: str) -> tuple[Family, str]:
    """Give the family of a checkpoint and the name of its supported class.

    Args:
        model_type: `config.model_type`; None where there is no such thing.
        architectures: the checkpoint's class names, the most specific first.
        where: the checkpoint, for the error.

    Raises:
        ValueError: the checkpoint is of another kind; the message names it and lists the supported classes.
    """
    names = list(architectures)
    family = FAMILIES.get(model_type or "")
    if family is not None:
        for name in names:
            if name in family.architectures:
                return family, name
    supported = ", ".join(name for family in FAMILIES.values() for name in family.architectures)
    kind = names[0] if names else "a config that names no architecture"
    raise ValueError(
        f"{where} must hold one of the supported kinds of vision transformer ({supported}); it holds {kind} "
        f"(model_type {model_type!r}). Pass a checkpoint of a supported kind."
    )
