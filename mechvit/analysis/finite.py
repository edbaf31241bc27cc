"""Refusing numbers that are not finite before a table or a page is made of them: the model, the image, the layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from mechvit.models import HookedViT

SHOWN = 8
"""Images that an error names."""


def model_name(model: HookedViT) -> str:
    """Return a model's name for errors and files: where it was loaded from, else its class."""
    return str(getattr(model.hf_config, "name_or_path", "") or model.cfg.architecture)


def check_finite(
    what: str,
    layers: Sequence[Float[Tensor, "batch ..."]],
    model: HookedViT | str,
    images: Sequence[object] | Tensor | None = None,
    *,
    numbers: Sequence[int] | None = None,
) -> None:
    """Refuse numbers of some layers that are not finite.

    Args:
        what: the numbers, in the plural.
        layers: each layer's, one row an image.
        model: that gave them, or its name.
        images: their ids or names, in order; their places in the batch when None.
        numbers: of the layers; 0, 1, ... when None.

    Raises:
        ValueError: NaN or infinity; names the model, the first such layer, and the images.
    """
    bad = torch.stack([~layer.isfinite().reshape(len(layer), -1).all(1) for layer in layers])
    if not bool(bad.any()):
        return
    first = int(bad.any(1).nonzero()[0])
    rows = bad[first].nonzero()[:, 0].tolist()
    known = images.tolist() if isinstance(images, Tensor) else images
    named = (
        f"the places {rows[:SHOWN]} of the batch" if known is None else f"the images {[known[i] for i in rows[:SHOWN]]}"
    )
    name = model if isinstance(model, str) else model_name(model)
    raise ValueError(
        f"{what} must be finite; the model {name!r} gave NaN or infinity at layer "
        f"{first if numbers is None else numbers[first]} on {named}: check the checkpoint and the images"
    )
