"""Which activations to cache, and the hooks that cache them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from typing import TypeAlias

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities import Slice

NamesFilter: TypeAlias = str | Iterable[str] | Callable[[str], bool] | None

ON_REQUEST = {
    "hook_result": "set_use_attn_result(True)",
    "hook_q_input": "set_use_split_qkv_input(True)",
    "hook_k_input": "set_use_split_qkv_input(True)",
    "hook_v_input": "set_use_split_qkv_input(True)",
    "hook_mlp_in": "set_use_hook_mlp_in(True)",
}
"""Hook points that exist only after a call, because they cost memory or time."""


def check_name(name: str, points: Collection[str]) -> None:
    """Raise a ValueError with the nearest name, or the call that makes it, unless `name` is a hook point."""
    if name in points:
        return
    request = ON_REQUEST.get(name.rsplit(".", 1)[-1])
    if request is not None:
        raise ValueError(f"The hook point {name!r} exists on request only. Call model.{request} first.")
    near = difflib.get_close_matches(name, points, n=1, cutoff=0.0)
    raise ValueError(f"There is no hook point {name!r}. Did you mean {near[0]!r}? All are in model.hook_dict.")


def names_to_cache(names_filter: NamesFilter, points: Collection[str]) -> list[str]:
    """List the hook points that a filter selects: all (None), one name, several names, or a predicate.

    Raises:
        ValueError: a name is no hook point.
    """
    if names_filter is None:
        return list(points)
    if callable(names_filter):
        return [name for name in points if names_filter(name)]
    wanted = {names_filter} if isinstance(names_filter, str) else set(names_filter)
    for name in sorted(wanted):
        check_name(name, points)
    return [name for name in points if name in wanted]


def check_reached(names_filter: NamesFilter, stop_at_layer: int | None, n_layers: int) -> None:
    """Raise a ValueError where a name asked for lies beyond `stop_at_layer`, and so would never be cached."""
    if stop_at_layer is None or names_filter is None or callable(names_filter):
        return
    last = range(n_layers + 1)[stop_at_layer] if stop_at_layer >= 0 else n_layers + stop_at_layer
    for name in [names_filter] if isinstance(names_filter, str) else names_filter:
        parts = name.split(".")
        beyond = int(parts[1]) >= last if parts[0] == "blocks" else parts[0] not in ("hook_embed", "hook_pos_embed")
        if beyond:
            raise ValueError(
                f"stop_at_layer={stop_at_layer} ends the run before {name!r}. Stop later, or drop the name."
            )


def saver(
    cache: dict[str, Tensor],
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    remove_batch_dim: bool,
    pos_slice: Slice,
    suffix: str = "",
) -> Callable[[Tensor, HookPoint], None]:
    """Make the hook that stores what passes a hook point, cut to the tokens in `pos_slice`."""

    def save(tensor: Tensor, hook: HookPoint) -> None:
        assert hook.name is not None
        token_dim = _token_dim(tensor, hook.name)
        kept = tensor.detach()
        if token_dim is not None:
            kept = pos_slice.apply(kept, dim=token_dim)
        kept = kept.to(device=device, dtype=dtype)
        if pos_slice.mode != "identity" and kept._is_view():
            kept = kept.clone()  # a view would keep every token's memory alive
        cache[hook.name + suffix] = kept[0] if remove_batch_dim else kept

    return save


def _token_dim(tensor: Tensor, name: str) -> int | None:
    """Where the (query) token lies, from the end: per-head tensors are [batch, token, head, d], patterns
    [batch, head, query, key], the head's input and logits [batch, d] (no token)."""
    if tensor.dim() == 4:
        return -2 if name.endswith(("hook_attn_scores", "hook_pattern")) else -3
    return -2 if tensor.dim() == 3 else None
