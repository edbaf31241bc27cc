"""Selection of activations to cache, and the hooks that cache them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities import Slice

from mechvit.models.checkpoints.checks import check_name, check_target

NamesFilter: TypeAlias = str | Iterable[str] | Callable[[str], bool] | None


def names_to_cache(names_filter: NamesFilter, points: Collection[str]) -> list[str]:
    """List the hook points that a filter selects: all (None), one name, several names, or a predicate.

    Raises:
        ValueError: a name is not a hook point, or a predicate selects none.
    """
    if names_filter is None:
        return list(points)
    if callable(names_filter):
        check_target(names_filter, points)
        return [name for name in points if names_filter(name)]
    wanted = [names_filter] if isinstance(names_filter, str) else list(names_filter)
    for name in wanted:
        check_name(name, points)
    return [name for name in points if name in wanted]


def caching_hooks(
    points: Collection[str],
    names_filter: NamesFilter = None,
    incl_bwd: bool = False,
    device: torch.device | str | None = None,
    remove_batch_dim: bool = False,
    cache: dict[str, Tensor] | None = None,
    pos_slice: Any = None,
    dtype: torch.dtype | None = None,
    without_tokens: tuple[str, ...] = (),
) -> tuple[dict[str, Tensor], list[Any], list[Any]]:
    """Return (the dict to be filled, forward hooks, backward hooks) for `HookedViT.hooks`.

    Gradients are stored as NAME_grad, and only with `incl_bwd`. Points whose names begin with one of `without_tokens`
    hold what is pooled, and `pos_slice` leaves them whole.
    """
    cache = {} if cache is None else cache
    cut = partial(
        _saver,
        cache,
        device=device,
        dtype=dtype,
        remove_batch_dim=remove_batch_dim,
        pos_slice=pos_slice,
        without_tokens=without_tokens,
    )
    names = names_to_cache(names_filter, points)
    return cache, [(n, cut("")) for n in names], [(n, cut("_grad")) for n in names if incl_bwd]


def _saver(
    cache: dict[str, Tensor],
    suffix: str,
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    remove_batch_dim: bool,
    pos_slice: Any,
    without_tokens: tuple[str, ...],
) -> Callable[..., None]:
    """Return the hook that stores a hook point's value, cut to the tokens in `pos_slice`."""
    tokens = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)

    def save(tensor: Tensor, hook: HookPoint) -> None:
        assert hook.name is not None
        if remove_batch_dim and len(tensor) != 1:
            raise ValueError(f"remove_batch_dim needs a batch of one image; got {len(tensor)}. Pass them one by one.")
        kept = tensor.detach()
        dim = None if hook.name.startswith(without_tokens) else _token_dim(tensor, hook.name)
        if tokens.mode != "identity" and dim is not None:
            kept = tokens.apply(kept, dim=dim).clone()  # a view would keep the memory of all tokens alive
        kept = kept.to(device=device, dtype=dtype)
        cache[hook.name + suffix] = kept[0] if remove_batch_dim else kept

    return save


def _token_dim(tensor: Tensor, name: str) -> int | None:
    """Return the (query) token dimension, counted from the end; None without one.

    Patterns and scores are [batch, head, query, key], other per-head tensors [batch, token, head, d], and the head's
    input and the logits [batch, d], which have no token.
    """
    if tensor.dim() == 4:
        return -2 if name.endswith(("hook_attn_scores", "hook_pattern")) else -3
    return -2 if tensor.dim() == 3 else None
