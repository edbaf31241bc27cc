"""Decoys: changes of a stated norm that alter no function, so that the size of a change says nothing of its place.

Attention's queries and keys are turned by the angle that gives the norm; pairs of an MLP's neurons change places. What
is missing to the norm is added along the direction that a LayerNorm's output never holds (`no_ops`). Rotary positions
leave that alone for attention.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .edits import Weights, draw, exact, tensors
from .no_ops import neurons_in_order, rotated

if TYPE_CHECKING:
    from mechvit.models import HookedViT

LEAST = 1e-9
"""Share of a norm below which nothing is missing."""


class Decoy(NamedTuple):
    """A change of one branch that alters no function."""

    branch: str
    """The branch, as in `blocks.1.ln2+mlp`."""
    means: str
    """Means by which its weights are changed, joined by `+`: qk_rotation, neuron_swaps, unseen_direction."""
    norm: float
    """Frobenius norm of the change, all tensors of the branch together."""


def attention_decoy(model: HookedViT, layer: int, norm: float, generator: torch.Generator) -> tuple[str, Weights]:
    """Return the means of a decoy of attention and its weights."""
    found, used = {}, {}
    if model.cfg.positions != "rotary" and model.cfg.d_head > 1:
        state = generator.get_state()
        opposite = rotated(model, layer, math.pi, generator)
        used = {name: exact(model.get_parameter(name)) for name in opposite}
        whole = norm_of(opposite, used)
        generator.set_state(state)  # the same planes, by another angle
        found = rotated(model, layer, 2 * math.asin(min(1.0, norm / whole)) if whole else 0.0, generator)
    missing = norm**2 - norm_of(found, used) ** 2
    if missing <= (LEAST * norm) ** 2:
        return "qk_rotation", found
    unseen = along_unseen(model, layer, "attn.v", missing, {}, generator)
    return "+".join([*(["qk_rotation"] if found else []), "unseen_direction"]), found | unseen


def mlp_decoy(model: HookedViT, layer: int, norm: float, generator: torch.Generator) -> tuple[str, Weights]:
    """Return the means of a decoy of an MLP and its weights."""
    d_mlp = model.cfg.d_mlp
    pairs = torch.randperm(d_mlp, generator=generator)[: d_mlp // 2 * 2].view(-1, 2)
    order, room = torch.arange(d_mlp), norm**2
    swapped = order.clone()
    swapped[pairs.flatten()] = pairs.flip(1).flatten()
    whole = neurons_in_order(model, layer, swapped)
    costs = torch.zeros(d_mlp, dtype=torch.float64)
    for name, values in whole.items():
        change = (values - exact(model.get_parameter(name))).square()
        by_neuron = change.T if name.endswith("fc2.weight") else change
        costs += by_neuron.reshape(d_mlp, -1).sum(1)
    for first, second in pairs.tolist():
        cost = float(costs[first] + costs[second])
        if cost <= room:
            order[first], order[second], room = second, first, room - cost
    found = neurons_in_order(model, layer, order) if room < norm**2 else {}
    missing = norm**2 - norm_of(found, {name: exact(model.get_parameter(name)) for name in found}) ** 2
    if missing <= (LEAST * norm) ** 2:
        return "neuron_swaps", found
    unseen = along_unseen(model, layer, "mlp.fc1", missing, found, generator)
    return "+".join([*(["neuron_swaps"] if found else []), "unseen_direction"]), found | unseen


def along_unseen(
    model: HookedViT, layer: int, linear: str, square: float, changed: Weights, generator: torch.Generator
) -> Weights:
    """Return a linear layer's weights with a multiple of 1 / gain added to every row, orthogonal to a change so far.

    Args:
        linear: `attn.v` or `mlp.fc1`, which read ln1 and ln2.
        square: squared norm to be added.
        changed: new values of some tensors; those of the layer are added to.

    Raises:
        ValueError: a gain of 0, or no bias to take the constant off.
    """
    block: Any = model.blocks[layer]
    branch, name = linear.split(".")
    layer_norm, module = block.ln1 if branch == "attn" else block.ln2, getattr(getattr(block, branch), name)
    gains, shift = exact(layer_norm.w), exact(layer_norm.b)
    before = tensors(module, f"blocks.{layer}.{linear}")
    own = {key: changed.get(key, values) for key, values in before.items()}
    weight, bias = (f"blocks.{layer}.{linear}.{kind}" for kind in ("weight", "bias"))
    if bool((gains == 0).any()) or bias not in own:
        raise ValueError(
            f"a decoy of this norm needs a LayerNorm without gains of 0 before blocks.{layer}.{linear}, and a bias "
            "there: plant without decoys"
        )
    unseen = 1 / gains
    constant = shift @ unseen
    crossed = (own[weight] - before[weight]) @ unseen - constant * (own[bias] - before[bias])
    rows = draw(len(own[bias]), generator)
    if crossed.norm() > 0:
        rows = rows - crossed * (crossed @ rows) / crossed.square().sum()
    rows = rows * (square / (rows.square().sum() * (unseen.square().sum() + constant**2))).sqrt()
    return {weight: own[weight] + torch.outer(rows, unseen), bias: own[bias] - constant * rows}


def norm_of(weights: Weights, before: Weights) -> float:
    """Compute the Frobenius norm of the change of several tensors together."""
    return math.sqrt(sum(float((values - before[name]).square().sum()) for name, values in weights.items()))
