"""Checks of what two models must share for a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechvit.models.processors.preprocessing import check_alike

if TYPE_CHECKING:
    from mechvit.models import HookedViT

SHAPES: dict[str, str] = {
    "d_model": "widths (d_model)",
    "n_layers": "numbers of blocks",
    "n_heads": "numbers of heads",
    "grid": "grids of patches (rows, columns)",
    "n_prefix_tokens": "numbers of tokens before the first patch",
}
"""Field of a model's config -> its name in errors, in the plural."""


def check_same_shape(base: HookedViT, tuned: HookedViT, what: str, names: Sequence[str]) -> None:
    """Refuse two models that differ in some fields of their configs, and for one grid also those that crop differently.

    Args:
        base, tuned: two models.
        what: the comparison, as the subject of the error's sentence.
        names: fields, some of `SHAPES`.

    Raises:
        ValueError: names the comparison, the field and both values.
    """
    for name in names:
        own, other = getattr(base.cfg, name), getattr(tuned.cfg, name)
        if own != other:
            raise ValueError(
                f"{what} needs two models of the same shape; their {SHAPES[name]} are {own} and {other}: behaviour, "
                "CKA and lenses compare models of any two shapes"
            )
    if "grid" in names:
        processors = {"the base model": base.image_processor, "the tuned model": tuned.image_processor}
        check_alike(processors, what, in_="place")
