"""Parts of a HookedViT by which weights are swapped, and temporary replacement of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from mechvit.arguments import checked
from mechvit.models.interrupts import temporary

if TYPE_CHECKING:
    from mechvit.models import HookedViT

Unit = Literal["blocks", "branches", "parts"]
"""Granularity of a model's division. `parts`: the embedding, each block's ln1, attn, ln2 and mlp, ln_final and the
head. `branches`: ln1 together with attn, and ln2 with mlp. `blocks`: whole blocks.
"""
_BLOCK = ("ln1", "attn", "ln2", "mlp")


@checked
def model_parts(model: HookedViT) -> dict[str, tuple[str, ...]]:
    """Divide all of a model's own weights into parts, in the order of a forward pass.

    `embed` holds the patch embedding, special tokens, positions, a position bias that all layers share and `ln_pre`;
    `blocks.l.attn` and `blocks.l.mlp` hold their layer scale and position bias; `head` holds the pooler. A part without
    weights (a checkpoint without `ln_final`) is left out.

    Returns:
        part -> the names of its tensors, as in `own_state_dict`; every tensor is in exactly one part.

    Source: modules as units of what tuning changes, arXiv:1902.01996.
    """
    blocks = [f"blocks.{layer}.{part}" for layer in range(model.cfg.n_layers) for part in _BLOCK]
    found: dict[str, list[str]] = {part: [] for part in ("embed", *blocks, "ln_final", "head")}
    for name in model.own_state_dict():
        first = name.split(".")[0]
        part = {"ln_pre": "embed", "relative": "embed", "pooler": "head"}.get(first, first)
        found[".".join(name.split(".")[:3]) if part == "blocks" else part].append(name)
    return {part: tuple(names) for part, names in found.items() if names}


@checked
def part_groups(model: HookedViT, unit: Unit) -> dict[str, tuple[str, ...]]:
    """Group the parts of a model, in the order of a forward pass.

    Args:
        unit: `parts` keeps each separate; `branches` joins `blocks.l.ln1+attn` and `blocks.l.ln2+mlp`; `blocks` joins
            each block.

    Returns:
        the group's name -> its parts, as `model_parts` names them; every part is in exactly one group.

    Raises:
        ValueError: an unknown unit.
    """
    if unit not in get_args(Unit):
        raise ValueError(f"unit must be one of {', '.join(get_args(Unit))}; got {unit!r}")
    found: dict[str, list[str]] = {}
    for part in model_parts(model):
        block, _, own = part.rpartition(".")
        if block and unit != "parts":
            branch = "ln1+attn" if own in _BLOCK[:2] else "ln2+mlp"
            found.setdefault(block if unit == "blocks" else f"{block}.{branch}", []).append(part)
        else:
            found[part] = [part]
    return {name: tuple(parts) for name, parts in found.items()}


def groups_named(model: HookedViT, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parse names of groups of any unit, as in `blocks.3`, `blocks.3.ln1+attn`, `blocks.3.attn` or `head`.

    Raises:
        ValueError: no name, or one that the model lacks (the nearest is suggested).
    """
    known = {name: group for unit in get_args(Unit) for name, group in part_groups(model, unit).items()}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise ValueError(
                f"a part must be one of the model's, as in blocks.{model.cfg.n_layers - 1}.mlp; got {name!r}"
                + (f" (did you mean {near[0]}?)" if near else f" (it has {', '.join(known)})")
            )
    if not names:
        raise ValueError("name at least one part, as in blocks.0.mlp; got none")
    return {name: known[name] for name in names}


def shared_parts(receiver: HookedViT, giver: HookedViT) -> tuple[str, ...]:
    """Return the parts of the head whose weights are one in memory, as grafted heads are; none for a model itself."""
    if receiver is giver:
        return ()
    own, other = receiver.own_state_dict(), giver.own_state_dict()
    return tuple(
        part
        for part, names in model_parts(receiver).items()
        if part in ("ln_final", "head") and all(n in other and own[n].data_ptr() == other[n].data_ptr() for n in names)
    )


def weights_of(model: HookedViT, parts: Sequence[str] | frozenset[str]) -> dict[str, Tensor]:
    """Return the tensors of some parts, by name, without copying."""
    tensors, named = model.own_state_dict(), model_parts(model)
    return {name: tensors[name] for part in parts for name in named[part]}


@checked
@temporary
def weights_replaced(model: HookedViT, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace some of a model's weights in the context.

    Nothing is copied: its parameters point at the given tensors in the context, and at their own again afterwards,
    whatever is raised inside. Hooks keep firing.

    Args:
        weights: parameter name -> a tensor of the same shape, dtype and device.

    Raises:
        ValueError: a tensor that does not fit.
    """
    parameters = {name: model.get_parameter(name) for name in weights}
    for name, parameter in parameters.items():
        wanted, got = ((list(t.shape), t.dtype, t.device) for t in (parameter, weights[name]))
        if wanted != got:
            raise ValueError(f"{name} must be {' '.join(map(str, wanted))}; got {' '.join(map(str, got))}")
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, tensor in weights.items():
            parameters[name].data = tensor
        yield
    finally:
        for name, tensor in own.items():
            parameters[name].data = tensor
