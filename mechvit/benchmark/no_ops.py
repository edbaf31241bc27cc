"""Edits that change weights and no function: rotations, permutations, and what a LayerNorm's output never holds.

- Queries and keys turned by one rotation of a head's dimensions: q k is the same. Not where positions turn them, too.
- The heads of a block in another order, with their rows of the output weights (and columns of a position bias).
- The neurons of an MLP in another order.
- LayerNorm's output x = w xhat + b has sum xhat = 0, so that x . (1 / w) is the constant sum b / w: a multiple of 1 / w
  added to a row of the next layer's weights, and taken off its bias, changes nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .edits import Edit, Pixels, Weights, draw, exact, tensors

if TYPE_CHECKING:
    from mechvit.models import HookedViT


def qk_rotation(model: HookedViT, layer: int, generator: torch.Generator, pixels: Pixels) -> Edit:
    """Turn every head's queries and keys by a quarter in random planes."""
    refuse_turned(model)
    if model.cfg.d_head < 2:
        raise ValueError(f"a rotation needs heads of two dimensions; got a model with d_head {model.cfg.d_head}")
    found = rotated(model, layer, math.pi / 2, generator)
    return Edit(f"blocks.{layer}.attn", lambda t: found, most=1.0)


def head_permutation(model: HookedViT, layer: int, generator: torch.Generator, pixels: Pixels) -> Edit:
    """Put the heads of a block into another order, none where it was."""
    if model.relative is not None:
        raise ValueError(
            "heads change places where no position bias is shared by all layers, as this checkpoint's is: plant "
            "another kind"
        )
    if model.cfg.n_heads < 2:
        raise ValueError("heads change places where there are two or more; this model has one")
    found = heads_in_order(model, layer, moved(model.cfg.n_heads, generator))
    return Edit(f"blocks.{layer}.attn", lambda t: found, most=1.0)


def neuron_permutation(model: HookedViT, layer: int, generator: torch.Generator, pixels: Pixels) -> Edit:
    """Put the neurons of an MLP into another order, none where it was."""
    if model.cfg.d_mlp < 2:
        raise ValueError("neurons change places where there are two or more; this model has one")
    found = neurons_in_order(model, layer, moved(model.cfg.d_mlp, generator))
    return Edit(f"blocks.{layer}.mlp", lambda t: found, most=1.0)


NO_OPS = {edit.__name__: edit for edit in (qk_rotation, head_permutation, neuron_permutation)}
"""Kind -> the function that makes the edit; none changes what the model computes."""


def refuse_turned(model: HookedViT) -> None:
    """Refuse a model whose queries and keys are turned by rotary positions before they meet."""
    if model.cfg.positions == "rotary":
        raise ValueError(
            "queries and keys may be rotated together where nothing else turns them; this checkpoint has rotary "
            "positions: plant another kind"
        )


def moved(count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """Draw an order in which nothing stays where it was: one circle through all."""
    circle = torch.randperm(count, generator=generator)
    order = torch.empty_like(circle)
    order[circle] = circle.roll(1)
    return order


def heads_in_order(model: HookedViT, layer: int, order: Int[Tensor, " head"]) -> Weights:
    """Return the weights of attention with its heads in another order."""
    attn: Any = model.blocks[layer].attn
    at = f"blocks.{layer}.attn"
    rows = torch.arange(model.cfg.n_heads * model.cfg.d_head).view(model.cfg.n_heads, -1)[order].flatten()
    found: Weights = {}
    for name in "qkv":
        found |= {key: values[rows] for key, values in tensors(getattr(attn, name), f"{at}.{name}").items()}
    found[f"{at}.o.weight"] = exact(attn.o.weight)[:, rows]
    if attn.relative is not None:
        found[f"{at}.relative.table"] = exact(attn.relative.table)[:, order]
    return found


def neurons_in_order(model: HookedViT, layer: int, order: Int[Tensor, " neuron"]) -> Weights:
    """Return the weights of an MLP with its neurons in another order."""
    mlp, at = model.blocks[layer].mlp, f"blocks.{layer}.mlp"
    found = {key: values[order] for key, values in tensors(mlp.fc1, f"{at}.fc1").items()}
    if mlp.gate is not None:
        found |= {key: values[order] for key, values in tensors(mlp.gate, f"{at}.gate").items()}
    return found | {f"{at}.fc2.weight": exact(mlp.fc2.weight)[:, order]}


def rotated(model: HookedViT, layer: int, angle: float, generator: torch.Generator) -> Weights:
    """Return the weights of queries and keys with every head turned by an angle in d_head / 2 random planes.

    The change has the norm 2 sin(angle / 2) |P W|, with P the projection onto the planes: all dimensions, but for one
    where their number is odd.
    """
    n_heads, d_head = model.cfg.n_heads, model.cfg.d_head
    turns = torch.stack([turn(d_head, angle, generator) for _ in range(n_heads)])
    attn: Any = model.blocks[layer].attn
    found: Weights = {}
    for name in "qk":
        for key, values in tensors(getattr(attn, name), f"blocks.{layer}.attn.{name}").items():
            heads = values.unflatten(0, (n_heads, d_head))
            found[key] = torch.einsum("hde,he...->hd...", turns, heads).flatten(0, 1)
    return found


def turn(size: int, angle: float, generator: torch.Generator) -> Float[Tensor, "size size"]:
    """Return the rotation by one angle in size // 2 random planes that are orthogonal to each other."""
    axes = torch.linalg.qr(draw(size * size, generator).view(size, size)).Q
    first, second = axes[:, : size - 1 : 2], axes[:, 1::2]
    plane = first @ first.T + second @ second.T
    return (
        torch.eye(size).double()
        + (math.cos(angle) - 1) * plane
        + math.sin(angle) * (second @ first.T - first @ second.T)
    )
