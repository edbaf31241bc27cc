"""Checks that refuse values that are not finite, naming the model, the images and the layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechvit.arguments import checked

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from mechvit.models import HookedViT

MOST_NAMED = 8
"""Number of images that an error names."""


def model_name(model: HookedViT) -> str:
    """Return a model's name for errors and files: where it was loaded from, else its class."""
    return str(getattr(model.hf_config, "name_or_path", "") or model.cfg.architecture)


@checked
@torch.inference_mode()
def first_not_finite(model: HookedViT, pixels: Float[Tensor, "batch channel height width"]) -> str | None:
    """Return the first hook point of a pass that holds NaN or infinity, by name; None where all are finite.

    Args:
        model: any HookedViT; hooks that are attached stay.
        pixels: what the image processor gives.

    Returns:
        the hook point's name, or "the pixels" where these are not finite themselves.
    """
    if not bool(pixels.isfinite().all()):
        return "the pixels"
    found: list[str] = []

    def look(values: Tensor, hook: HookPoint) -> None:
        if not found and not bool(values.isfinite().all()):
            found.append(str(hook.name))

    model.run_with_hooks(pixels, fwd_hooks=[(name, look) for name in model.hook_dict])
    return found[0] if found else None


def origin(begins: Callable[[], str | None] | None) -> str:
    """Return the clause of an error that says where values stop being finite, or how to find out.

    Args:
        begins: function that finds the place (`first_not_finite`); None where model and pixels are not at hand.
    """
    if begins is None:
        return " (mechvit.analysis.first_not_finite(model, pixels) tells where they begin)"
    place = begins()
    return f", first at {place}" if place else " (at no hook point when it was run again)"


def check_finite(
    what: str,
    layers: Sequence[Float[Tensor, "batch ..."]],
    model: HookedViT | str,
    images: Sequence[object] | Tensor | None = None,
    *,
    numbers: Sequence[int] | None = None,
) -> None:
    """Refuse values of some layers that are not finite.

    Args:
        what: name of the values, in the plural.
        layers: values of each layer, one row per image.
        model: model that computed them, or its name.
        images: ids or names of the images, in order; their indices in the batch when None.
        numbers: numbers of the layers; 0, 1, ... when None.

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
        f"the places {rows[:MOST_NAMED]} of the batch"
        if known is None
        else f"the images {[known[i] for i in rows[:MOST_NAMED]]}"
    )
    name = model if isinstance(model, str) else model_name(model)
    raise ValueError(
        f"{what} must be finite; the model {name!r} gave NaN or infinity at layer "
        f"{first if numbers is None else numbers[first]} on {named}: check the checkpoint and the images"
    )
