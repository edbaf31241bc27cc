"""Models that are compared, one Hugging Face ViT, copies of it and its HookedViT, and a check that they agree."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from timing import Contender

if TYPE_CHECKING:
    from torch import Tensor

    from mechvit import HookedViT

SHAPES: dict[str, dict[str, Any]] = {
    "vit_b_16": {
        "image_size": 224,
        "patch_size": 16,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_labels": 1000,
    },
    "small": {
        "image_size": 48,
        "patch_size": 8,
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_labels": 19,
    },
    "tiny": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_labels": 5,
    },
}
SHAPES["vit_s_16"] = SHAPES["vit_b_16"] | {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6}
SHAPES["vit_l_16"] = SHAPES["vit_b_16"] | {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}
for _tokens, _size in ((577, 384), (1370, 592), (4097, 1024)):
    SHAPES[f"vit_b_16_{_tokens}"] = SHAPES["vit_b_16"] | {"image_size": _size}
"""Shapes by name: arguments of `transformers.ViTConfig`. The last three are ViT-B/16 with so many tokens."""

TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest difference that counts as agreement, over the largest value of the reference."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """One set of weights in all models that are timed."""

    sdpa: Any
    """Hugging Face with fused attention."""
    again: Any
    """A copy with its own weights, whose ratio to the first is noise."""
    eager: Any
    """Hugging Face with explicit attention, which can return its patterns."""
    hooked: HookedViT
    pixels: Tensor
    """One batch, [batch, 3, height, width]."""


def make_models(shape: str, batch_size: int, device: str, dtype: str, seed: int) -> Models:
    """Make the models of a shape with random weights, and random pixels for them.

    The weights lie far from their initial values, so that patterns are not uniform and no LayerNorm is the identity.
    """
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    from mechvit import HookedViT

    generator = torch.Generator().manual_seed(seed)
    sdpa = ViTForImageClassification._from_config(ViTConfig(**SHAPES[shape]), attn_implementation="sdpa").eval()
    with torch.no_grad():
        for parameter in sdpa.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    sdpa = sdpa.to(device, getattr(torch, dtype))
    again, eager = copy.deepcopy(sdpa), copy.deepcopy(sdpa)
    eager.set_attn_implementation("eager")
    size = sdpa.config.image_size
    pixels = torch.randn(batch_size, 3, size, size, generator=generator).to(device, getattr(torch, dtype))
    return Models(sdpa=sdpa, again=again, eager=eager, hooked=HookedViT.from_hf(sdpa), pixels=pixels)


def check_agreement(contenders: Sequence[Contender], tolerance: float) -> dict[str, float]:
    """Run each contender once, and compare its tensors with those of the first one.

    Args:
        contenders: the first must name every tensor that another one names.
        tolerance: the largest difference allowed, over the largest value of the first contender's tensor.

    Returns:
        Each later contender's largest difference, relative as the tolerance is.

    Raises:
        ValueError: a contender's tensor is of another shape, differs by more, or is nowhere in the first's result.
    """
    first, *others = contenders
    reference = _tensors(first)
    found: dict[str, float] = {}
    for contender in others:
        for name, tensor in _tensors(contender).items():
            if name not in reference or tensor.shape != reference[name].shape:
                there = {key: list(value.shape) for key, value in reference.items()}
                raise ValueError(
                    f"{contender.name} gives {name} {list(tensor.shape)}, which must be among what {first.name} "
                    f"gives: {there}."
                )
            wide = reference[name].double()
            error = ((tensor.double() - wide).abs().max() / wide.abs().max()).item()
            if not error <= tolerance:
                raise ValueError(
                    f"{contender.name} and {first.name} must agree on {name} to {tolerance:g} of its largest value; "
                    f"they differ by {error:.2g}, so their times cannot be compared."
                )
            found[contender.name] = max(error, found.get(contender.name, 0.0))
    return found


def _tensors(contender: Contender) -> Mapping[str, Tensor]:
    if contender.tensors is None:
        raise ValueError(f"{contender.name} must say which tensors are compared. Give it `tensors`.")
    with contender.context():
        return contender.tensors(contender.call())
